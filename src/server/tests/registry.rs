//! Terminals that people list and describe, through the program and the API.

use clap::Parser;

use super::*;
use crate::event::Class;

/// Runs `flashmob terminal …` against the server.
async fn terminal(world: &World, arguments: &[&str]) -> Result<(), Failure> {
    #[derive(Parser)]
    struct Program {
        #[command(flatten)]
        terminal: crate::cli::terminal::TerminalArgs,
    }
    let server = world.url("");
    let all = ["flashmob"].iter().chain(arguments).copied().chain(["--server", &server]);
    crate::cli::terminal::run(Program::try_parse_from(all).expect("arguments").terminal).await
}

#[tokio::test]
async fn a_room_is_imported_described_exported_and_survives_a_restart() {
    let mut world = World::new("").await;
    let file = world.at("room.csv");
    let path = file.to_str().expect("a path").to_string();
    fs::write(&file, format!("label,mac,room,seat\nlab-10,{A},101,10\nlab-2,{B},101,2\n")).expect("written");
    terminal(&world, &["import", &path]).await.expect("imported");
    let set = ["set", "lab-2", "--group", "east", "--group", "win", "--hostname", "pc-2", "--seat", ""];
    terminal(&world, &set).await.expect("described");
    terminal(&world, &["set", "lab-2", "--ungroup", "win"]).await.expect("described");
    world.restart().await;
    let row = world.row(B).await;
    assert_eq!((row.label.as_deref(), row.room.as_deref(), row.seat), (Some("lab-2"), Some("101"), None));
    assert_eq!((row.groups, row.hostname.as_deref()), (vec!["east".to_string()], Some("pc-2")));
    assert_eq!((row.new, row.silent), (false, None), "it never spoke");
    assert_eq!(world.hello(B).await, B);
    assert!(world.row(B).await.silent.is_some());
    let (_, table) = world.text("/api/v1/terminals/export").await;
    let lines = format!(
        "mac,uuid,label,room,seat,groups,hostname\n{B},,lab-2,101,,east,pc-2\n{A},,lab-10,101,10,,\n"
    );
    assert_eq!(table, lines);
    terminal(&world, &["forget", "lab-10"]).await.expect("forgotten");
    assert_eq!(world.text("/api/v1/terminals/lab-10").await.0, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn a_table_with_a_mistake_changes_nothing_and_names_its_line() {
    let world = World::new("").await;
    let file = world.at("room.csv");
    fs::write(&file, format!("mac,label\n{A},lab-1\n{B},lab-1\n")).expect("written");
    let failure = terminal(&world, &["import", file.to_str().expect("a path")]).await.expect_err("a mistake");
    assert_eq!(failure.class, Class::Refused);
    assert!(failure.message.starts_with("line 3, column label: the label 'lab-1' belongs to"), "{failure:?}");
    assert!(failure.advice.starts_with("Nothing was imported."), "{failure:?}");
    assert_eq!(world.text("/api/v1/terminals").await.1, "[]");
    let nothing = terminal(&world, &["set", A]).await.expect_err("no change is named");
    assert_eq!(nothing.class, Class::Usage);
}

#[tokio::test]
async fn the_list_shows_one_room_or_group_or_those_that_are_new() {
    let world = World::new("[[group]]\nname='qemu'\nmodels=['qemu']\n").await;
    let file = world.at("room.csv");
    let table = format!("mac,room,groups\n{A},1 a,east\n02:00:00:00:00:01,1 a,\n02:00:00:00:00:02,2,east\n");
    fs::write(&file, table).expect("written");
    terminal(&world, &["import", file.to_str().expect("a path")]).await.expect("imported");
    world.hello(A).await;
    world.hello(B).await;
    let list = async |query: &str| {
        let text = world.text(&format!("/api/v1/terminals{query}")).await.1;
        let rows: Vec<TerminalView> = serde_json::from_str(&text).expect(&text);
        rows.into_iter().map(|row| row.id).collect::<Vec<_>>()
    };
    assert_eq!(list("").await.len(), 4);
    assert_eq!(list("?room=1+a").await, ["02:00:00:00:00:01", A]);
    assert_eq!(list("?room=1+a&group=east").await, [A]);
    assert_eq!(list("?group=qemu").await, [A], "the other one is not registered");
    assert_eq!(list("?new=true").await, [B]);
    let (status, text) = world.text("/api/v1/terminals?room=3").await;
    assert!(status == StatusCode::NOT_FOUND && text.contains("no room '3'; rooms are 1 a, 2"), "{text}");
    assert!(world.text("/api/v1/terminals?rom=3").await.0.is_client_error());
    terminal(&world, &["list", "--room", "1 a", "--new"]).await.expect("an empty list");
    let failure = terminal(&world, &["list", "--group", "est"]).await.expect_err("no such group");
    assert!(
        failure.class == Class::Usage && failure.message.contains("groups are east, qemu"),
        "{failure:?}"
    );
}

#[tokio::test]
async fn only_the_servers_own_machine_lists_and_describes_terminals() {
    let world = World::new("").await;
    world.hello(A).await;
    let path = |path: &str| world.url(&format!("/api/v1/terminals/{path}"));
    let import = world.http.post(path("import")).header("origin", "http://lab").body("mac\n");
    assert_eq!(import.send().await.expect("an answer").status(), StatusCode::FORBIDDEN);
    let describe = world.http.patch(path(A)).header("origin", "http://lab").json(&serde_json::json!({}));
    assert_eq!(describe.send().await.expect("an answer").status(), StatusCode::FORBIDDEN);
    assert!(world.row(A).await.new);
    let large = world.http.post(path("import")).body(vec![b'\n'; 5 << 20]);
    assert_eq!(large.send().await.expect("an answer").status(), StatusCode::PAYLOAD_TOO_LARGE);
    let wrong = world.http.patch(path(A)).json(&serde_json::json!({"lable": "x"})).send().await;
    assert!(wrong.expect("an answer").status().is_client_error());
}

#[tokio::test]
async fn a_machine_that_nobody_listed_is_new_until_a_person_accepts_it_unless_registration_is_open() {
    let mut world = World::new("").await;
    world.hello(A).await;
    assert!(world.row(A).await.new);
    fs::write(world.at("config.toml"), "register = 'open'\n").expect("written");
    world.restart().await;
    world.hello(A).await;
    world.hello(B).await;
    assert!(world.row(A).await.new, "it did not come for the first time");
    assert!(!world.row(B).await.new);
    terminal(&world, &["set", A, "--accept"]).await.expect("accepted");
    world.restart().await;
    assert!(!world.row(A).await.new && !world.row(B).await.new);
}
