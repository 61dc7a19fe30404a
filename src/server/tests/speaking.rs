//! Who may speak: what callers on other machines may do.

use reqwest::{Method, RequestBuilder};

use super::*;
use crate::api::{AuditEntry, Describe, NewToken, Refusal, TokenMade};
use crate::io::net::api_client::{Api, CallError, Taken};
use crate::io::net::credentials::Credentials;

/// A server with a port for callers on other machines.
async fn abroad(config: &str) -> World {
    let mut world = World::new(config).await;
    world.open_abroad().await;
    world
}

/// The ticket in a boot script.
pub(super) fn ticket_in(script: &str) -> String {
    let (_, rest) = script.split_once("flashmob.ticket=").expect("a ticket");
    rest.split(' ').next().expect("a word").to_string()
}

/// A netbooted agent that has this ticket.
fn agent(world: &World, ticket: Option<String>) -> Api {
    let base = world.abroad("");
    let ticket = ticket.map(|ticket| (base.clone(), ticket));
    let client = Client::builder().no_proxy().build().expect("client");
    Api::new(client, base).with(Credentials::of_terminal(ticket, None))
}

async fn hello(api: &Api, mac: &str) -> Result<String, CallError> {
    api.hello(&hello_of(mac), Duration::from_secs(10)).await.map(|welcome| welcome.terminal)
}

async fn refused(request: RequestBuilder) -> (StatusCode, Refusal) {
    let answer = request.send().await.expect("an answer");
    (answer.status(), answer.json().await.expect("a refusal"))
}

#[tokio::test]
async fn a_netbooted_terminal_speaks_by_the_ticket_of_its_boot_script() {
    let mut world = abroad(QUIET).await;
    assert!(!world.ipxe(A, "efi").await.contains("flashmob.ticket"), "nobody wants it to be imaged");
    world.order(A).await;
    let ticket = ticket_in(&world.ipxe(A, "efi").await);
    // The server may be restarted between the script and the agent's first call, and after it.
    world.restart().await;
    let api = agent(&world, Some(ticket.clone()));
    let terminal = hello(&api, A).await.expect("admitted");
    assert_eq!(hello(&api, A).await.as_ref(), Ok(&terminal), "again by its secret");
    let Ok(Taken::Job(job)) = api.take(&terminal, &Take::default()).await else { panic!("no work") };

    let again = hello(&agent(&world, Some(ticket)), A).await.expect_err("the ticket was used");
    assert!(again.to_string().contains("was used before"), "{again}");
    let none = hello(&agent(&world, None), A).await.expect_err("known");
    let CallError::Refused(none) = none else { panic!("{none}") };
    assert!(none.status == 401 && none.advice.contains("flashmob terminal admit"), "{none:?}");
    let thief = ticket_in(&world.ipxe(A, "efi").await);
    let thief = agent(&world, Some(thief));
    assert!(matches!(hello(&thief, A).await, Err(CallError::Busy { .. })), "while the terminal works");
    world.progress(&job, Progress::at(crate::event::Stage::Fetch)).await.expect("it still reports");

    let wrong = agent(&world, None);
    assert!(matches!(wrong.take(&terminal, &Take::default()).await, Err(CallError::Refused(_))));
}

#[tokio::test]
async fn a_new_terminal_needs_no_ticket_and_a_known_one_from_a_stick_a_persons_word() {
    let world = abroad(QUIET).await;
    assert_eq!(hello(&agent(&world, None), A).await.as_deref(), Ok(A));
    let second_start = agent(&world, None);
    assert!(hello(&second_start, A).await.is_err());
    let url = world.abroad(&format!("/api/v1/terminals/{A}/admit"));
    assert_eq!(refused(world.http.post(url)).await.0, StatusCode::FORBIDDEN);
    assert_eq!(world.decide(A, "admit").await, StatusCode::NO_CONTENT);
    assert_eq!(hello(&second_start, A).await.as_deref(), Ok(A));
    world.order(A).await;
    assert!(matches!(second_start.take(A, &Take::default()).await, Ok(Taken::Job(_))));
}

#[tokio::test]
async fn a_refused_hello_changes_nothing() {
    let world = abroad(QUIET).await;
    let job = world.begin(A).await;
    let before = state(&world).await;
    let mut lie = hello_of(A);
    lie.inventory.machine = "another".into();
    lie.macs.push(B.into());
    for scheme in ["Bearer ", "Ticket ", "Basic "] {
        let request = world.http.post(world.abroad("/api/v1/hello")).json(&lie);
        let (status, refusal) = refused(request.header("Authorization", format!("{scheme}0f"))).await;
        assert_eq!(status, StatusCode::UNAUTHORIZED, "{refusal:?}");
    }
    assert_eq!(state(&world).await, before);
    world.progress(&job, Progress::at(crate::event::Stage::Fetch)).await.expect("taken");
}

/// A token made on the server itself.
pub(super) async fn token(world: &World, role: &str, room: Option<&str>) -> TokenMade {
    let new = NewToken { name: None, role: role.into(), room: room.map(Into::into) };
    world.post("/api/v1/tokens", &new).await.expect("made")
}

#[tokio::test]
async fn a_teachers_token_for_a_room_without_terminals_is_made_with_a_warning() {
    let world = World::new(QUIET).await;
    world.hello(A).await;
    in_room(&world, A, "101").await;
    assert_eq!(token(&world, "teacher", Some("101")).await.warning, None);
    let warning = token(&world, "teacher", Some("nope")).await.warning.expect("nobody is there");
    assert!(warning.contains("no terminal is in room nope"), "{warning}");
    assert_eq!(token(&world, "admin", None).await.warning, None);
}

/// A call from another machine, with or without a token.
async fn from_abroad(world: &World, method: Method, path: &str, token: Option<&str>) -> StatusCode {
    let request = world.http.request(method, world.abroad(path));
    let request = match token {
        Some(token) => request.bearer_auth(token),
        None => request,
    };
    request.send().await.expect("an answer").status()
}

async fn in_room(world: &World, mac: &str, room: &str) {
    let describe = Describe { room: Some(room.into()), ..Describe::default() };
    let request = world.http.patch(world.url(&format!("/api/v1/terminals/{mac}"))).json(&describe);
    assert_eq!(request.send().await.expect("an answer").status(), StatusCode::NO_CONTENT);
}

pub(super) async fn audit(world: &World) -> Vec<AuditEntry> {
    serde_json::from_str(&world.text("/api/v1/audit").await.1).expect("entries")
}

#[tokio::test]
async fn an_administrator_acts_from_another_machine_and_a_teacher_on_one_room() {
    let mut world = abroad(QUIET).await;
    for (mac, room) in [(A, "101"), (B, "102")] {
        let job = world.begin(mac).await;
        world.outcome(&job, crate::testkit::lab::done()).await.expect("taken");
        in_room(&world, mac, room).await;
    }
    let (admin, teacher) = (token(&world, "admin", None).await, token(&world, "teacher", Some("101")).await);
    world.restart().await;
    let (admin, teacher) = (Some(admin.token.as_str()), Some(teacher.token.as_str()));
    let act = async |method: Method, mac: &str, what: &str, token: Option<&str>| {
        from_abroad(&world, method, &format!("/api/v1/terminals/{mac}{what}"), token).await
    };
    assert_eq!(act(Method::POST, A, "/retry", teacher).await, StatusCode::NO_CONTENT);
    assert_eq!(act(Method::POST, B, "/retry", teacher).await, StatusCode::FORBIDDEN);
    assert_eq!(act(Method::POST, B, "/retry", None).await, StatusCode::FORBIDDEN);
    assert_eq!(act(Method::POST, B, "/retry", Some("guess")).await, StatusCode::UNAUTHORIZED);
    assert_eq!(act(Method::DELETE, A, "", teacher).await, StatusCode::FORBIDDEN, "a teacher forgets none");
    assert_eq!(act(Method::POST, B, "/retry", admin).await, StatusCode::NO_CONTENT);
    for path in ["/api/v1/tokens", "/api/v1/audit"] {
        assert_eq!(from_abroad(&world, Method::GET, path, teacher).await, StatusCode::FORBIDDEN, "{path}");
        assert_eq!(from_abroad(&world, Method::GET, path, admin).await, StatusCode::OK, "{path}");
    }
    let gone = from_abroad(&world, Method::DELETE, "/api/v1/tokens/teacher-101", admin).await;
    assert_eq!(gone, StatusCode::NO_CONTENT);
    assert_eq!(act(Method::POST, A, "/retry", teacher).await, StatusCode::UNAUTHORIZED);

    let entries = audit(&world).await;
    let did = |who: &str, action: &str, subject: &str, refused: bool| {
        let fits = |e: &&AuditEntry| {
            (e.who.as_str(), e.action.as_str(), e.subject.as_str()) == (who, action, subject)
                && e.detail.starts_with("refused") == refused
        };
        entries.iter().filter(fits).count()
    };
    assert_eq!(did("the server itself", "token create", "teacher-101", false), 1);
    assert_eq!(did("the server itself", "set", A, false), 1);
    assert_eq!(did("teacher-101 at 10.66.0.66", "retry", A, false), 1);
    assert_eq!(did("teacher-101 at 10.66.0.66", "retry", B, true), 1);
    assert_eq!(did("a stranger at 10.66.0.66", "retry", B, true), 2);
    assert_eq!(did("admin at 10.66.0.66", "token revoke", "teacher-101", false), 1);
    assert!(!format!("{entries:?}").contains(admin.expect("a token")));
}

#[tokio::test]
async fn a_teacher_says_hello_for_no_terminal_with_the_names_of_one_in_another_room() {
    let world = abroad(QUIET).await;
    for (mac, room) in [(A, "101"), (B, "102")] {
        world.hello(mac).await;
        in_room(&world, mac, room).await;
    }
    let teacher = token(&world, "teacher", Some("101")).await.token;
    let mut hello = hello_of(A);
    let call = async |hello: &Hello| {
        let request = world.http.post(world.abroad("/api/v1/hello")).bearer_auth(&teacher).json(hello);
        request.send().await.expect("an answer").status()
    };
    assert_eq!(call(&hello).await, StatusCode::OK, "the terminal itself");
    hello.macs.push(B.into());
    assert_eq!(call(&hello).await, StatusCode::FORBIDDEN);
    assert_eq!(world.row(A).await.macs, [A], "nothing changed");
    assert!(audit(&world).await.iter().any(|e| e.subject == B && e.detail.starts_with("refused")));
}

#[tokio::test]
async fn a_teacher_cancels_the_own_job_also_when_a_terminal_of_it_has_moved_to_another_room() {
    let world = abroad(QUIET).await;
    for mac in [A, B] {
        world.hello(mac).await;
        in_room(&world, mac, "101").await;
    }
    let (one, two) =
        (token(&world, "teacher", Some("101")).await, token(&world, "teacher", Some("101")).await);
    let order = serde_json::json!({"image": "golden", "targets": [A, "room:101", A],
        "every": "daily 22:00", "until": "+8h"});
    let create = world.http.post(world.abroad("/api/v1/jobs")).bearer_auth(&one.token).json(&order);
    assert_eq!(create.send().await.expect("an answer").status(), StatusCode::CREATED);
    let (_, jobs) = world.text("/api/v1/jobs").await;
    assert!(jobs.contains(&format!(r#""targets":["{A}","room:101"]"#)), "{jobs}");
    in_room(&world, B, "102").await;
    let (_, lab) = world.text("/api/v1/lab").await;
    assert!(lab.contains("it is still for terminals that are not in that room"), "{lab}");
    let cancel =
        async |token: &str| from_abroad(&world, Method::POST, "/api/v1/jobs/1/cancel", Some(token)).await;
    assert_eq!(cancel(&two.token).await, StatusCode::FORBIDDEN, "another teacher's, for another room");
    assert_eq!(cancel(&one.token).await, StatusCode::NO_CONTENT);
    assert!(!world.text("/api/v1/lab").await.1.contains("not in that room"));
}

#[tokio::test]
async fn an_image_by_hand_needs_a_person() {
    let world = abroad("").await;
    let wish = Take { image: Some("golden".into()), ..Take::default() };
    let new = agent(&world, None);
    let terminal = hello(&new, A).await.expect("new");
    let refusal = new.take(&terminal, &wish).await.expect_err("nobody decided it");
    let CallError::Refused(refusal) = refusal else { panic!("{refusal}") };
    assert!(refusal.status == 401 || refusal.status == 403, "{refusal:?}");
    let admin = token(&world, "admin", None).await.token;
    let client = Client::builder().no_proxy().build().expect("client");
    let by_admin = Api::new(client, world.abroad("")).with(Credentials::of_person(Some(admin)));
    assert_eq!(hello(&by_admin, A).await.as_deref(), Ok(A), "although it is known");
    assert!(matches!(by_admin.take(A, &wish).await, Ok(Taken::Job(_))));
    assert!(audit(&world).await.iter().any(|e| e.action == "take" && e.detail == "golden"));
}

/// All that forged calls could change.
async fn state(world: &World) -> String {
    let mut rows: Vec<TerminalView> =
        serde_json::from_str(&world.text("/api/v1/terminals").await.1).expect("rows");
    rows.iter_mut().for_each(|row| row.silent = None);
    let tokens = world.text("/api/v1/tokens").await.1;
    let export = world.text("/api/v1/terminals/export?new=true").await.1;
    let mut details = String::new();
    for mac in [A, B] {
        let text = world.text(&format!("/api/v1/terminals/{mac}")).await.1;
        let mut one: serde_json::Value = serde_json::from_str(&text).expect("details");
        one["silent"] = 0.into();
        // Whoever asks for a boot script is shown as the one who did.
        one["netbooted"] = serde_json::Value::Null;
        details += &one.to_string();
    }
    let jobs = world.text("/api/v1/jobs").await.1;
    format!("{rows:?}\n{tokens}\n{export}\n{details}\n{jobs}")
}

#[tokio::test]
async fn hundreds_of_forged_calls_change_nothing() {
    let plenty = "[limits]\nnew_terminals=10000\nrequests_per_second=10000\n";
    let world = abroad(&format!("{QUIET}{plenty}")).await;
    // A works, by the second of its attempts; B is done.
    world.ipxe(A, "efi").await;
    world.order(A).await;
    let old_ticket = ticket_in(&world.ipxe(A, "efi").await);
    let real = agent(&world, Some(old_ticket.clone()));
    let id = hello(&real, A).await.expect("admitted");
    let Ok(Taken::Job(stale)) = real.take(&id, &Take::default()).await else { panic!("no work") };
    let Ok(Taken::Job(job)) = real.take(&id, &Take::default()).await else { panic!("no work") };
    world.progress(&job, Progress::at(crate::event::Stage::Fetch)).await.expect("taken");
    let other = world.begin(B).await;
    world.outcome(&other, crate::testkit::lab::done()).await.expect("taken");
    in_room(&world, A, "101").await;
    in_room(&world, B, "101").await;
    let teacher = token(&world, "teacher", Some("102")).await.token;
    let revoked = token(&world, "admin", None).await;
    let gone = world.http.delete(world.url(&format!("/api/v1/tokens/{}", revoked.view.name)));
    assert_eq!(gone.send().await.expect("an answer").status(), StatusCode::NO_CONTENT);
    let before = state(&world).await;

    let vouchers = [
        None,
        Some("Bearer 00112233445566778899aabbccddeeff".to_string()),
        Some(format!("Bearer {teacher}")),
        Some(format!("Bearer {}", revoked.token)),
        Some(format!("Bearer {}", stale.token)),
        Some(format!("Ticket {old_ticket}")),
    ];
    let done = crate::testkit::lab::done();
    let mut lie = hello_of(A);
    lie.inventory.machine = "a lie".into();
    let progress = |token: &str| {
        let progress = Progress::at(crate::event::Stage::Serve);
        serde_json::to_string(&ProgressReport { token: token.into(), progress, chosen: vec![] })
    };
    let outcome =
        |token: &str| serde_json::to_string(&OutcomeReport { token: token.into(), outcome: done.clone() });
    let json = |text: serde_json::Result<String>| text.expect("JSON");
    let mut calls: Vec<(Method, String, String)> = Vec::new();
    for mac in [A, B] {
        lie.macs = vec![mac.into()];
        calls.push((Method::POST, "/api/v1/hello".into(), json(serde_json::to_string(&lie))));
        lie.macs = vec![mac.into(), "52:54:00:00:00:ff".into()];
        calls.push((Method::POST, "/api/v1/hello".into(), json(serde_json::to_string(&lie))));
        for what in ["take", "retry", "retry?accept_disks=true", "cancel", "admit"] {
            let body = json(serde_json::to_string(&Take { image: Some("golden".into()), ..Take::default() }));
            calls.push((Method::POST, format!("/api/v1/terminals/{mac}/{what}"), body));
        }
        calls.push((Method::POST, format!("/api/v1/terminals/{mac}/take"), "{}".into()));
        calls.push((Method::DELETE, format!("/api/v1/terminals/{mac}"), String::new()));
        calls.push((
            Method::PATCH,
            format!("/api/v1/terminals/{mac}"),
            r#"{"room":"102","join":[],"leave":[]}"#.into(),
        ));
    }
    for (path, body) in [
        ("/api/v1/jobs", r#"{"image":"golden","targets":["all"]}"#),
        ("/api/v1/jobs/1/cancel", ""),
        ("/api/v1/jobs/2/retry", r#"{"targets":["all"]}"#),
        ("/api/v1/decisions/retry", r#"{"targets":["all"]}"#),
        ("/api/v1/decisions/cancel", r#"{"targets":["all"]}"#),
        ("/api/v1/decisions/forget", r#"{"targets":["all"],"all_of_them":true}"#),
        ("/api/v1/decisions/set", r#"{"targets":["all"],"set":{"room":"102"}}"#),
        ("/api/v1/decisions/wake", r#"{"targets":["all"]}"#),
        ("/api/v1/decisions/cancel-jobs", r#"{"jobs":[1,2]}"#),
    ] {
        calls.push((Method::POST, path.into(), body.into()));
    }
    for attempt in [job.attempt, stale.attempt, other.attempt, 4711] {
        for token in ["", "guess", stale.token.as_str()] {
            calls.push((Method::POST, format!("/api/v1/attempts/{attempt}/progress"), json(progress(token))));
            calls.push((Method::POST, format!("/api/v1/attempts/{attempt}/outcome"), json(outcome(token))));
        }
    }
    calls.push((Method::POST, "/api/v1/terminals/import".into(), format!("mac,room\n{A},102\n")));
    calls.push((Method::POST, "/api/v1/backup".into(), String::new()));
    calls.push((Method::POST, "/api/v1/tokens".into(), r#"{"role":"admin"}"#.into()));
    calls.push((Method::DELETE, "/api/v1/tokens/teacher-102".into(), String::new()));
    let mut sent = 0;
    for mac in [A, B] {
        for path in ["ipxe", "grub", "step"] {
            let request = world.http.get(world.abroad(&format!("/boot/{path}?mac={mac}&platform=efi")));
            assert_eq!(request.send().await.expect("an answer").status(), StatusCode::OK);
        }
    }
    for ((method, path, body), voucher) in
        calls.iter().flat_map(|call| vouchers.iter().map(move |voucher| (call, voucher)))
    {
        let kind = if path.ends_with("import") { "text/csv" } else { "application/json" };
        let request = world.http.request(method.clone(), world.abroad(path)).body(body.clone());
        let request = request.header("Content-Type", kind);
        let request = match voucher {
            Some(voucher) => request.header("Authorization", voucher),
            None => request,
        };
        let status = request.send().await.expect("an answer").status();
        let known = [StatusCode::UNAUTHORIZED, StatusCode::FORBIDDEN, StatusCode::NOT_FOUND];
        assert!(known.contains(&status), "{method} {path} {voucher:?}: {status}");
        sent += 1;
    }
    assert_eq!(state(&world).await, before);
    world.progress(&job, Progress::at(crate::event::Stage::Verify)).await.expect("A still works");
    assert_eq!(hello(&real, A).await, Ok(id), "by its own secret");
    let refused = audit(&world).await.iter().filter(|e| e.detail.starts_with("refused")).count();
    assert!((1..=60).contains(&refused), "{refused} of {sent} refused calls are written down");
}

#[tokio::test]
async fn the_payload_is_for_those_who_have_a_ticket_unless_the_image_is_open() {
    let world = abroad(QUIET).await;
    let get = async |path: String, token: Option<&str>| {
        let request = world.http.get(world.abroad(&path));
        let request = token.into_iter().fold(request, |request, token| request.bearer_auth(token));
        let answer = request.send().await.expect("an answer");
        (answer.status(), answer.bytes().await.expect("bytes"))
    };
    let payload = "golden/format-1/payload/0000.bin";
    for small in ["manifest.json", "manifest.json.minisig", "pieces.sha256"] {
        assert_eq!(get(format!("/images/golden/format-1/{small}"), None).await.0, StatusCode::OK, "{small}");
    }
    let announce = |ticket: &str| {
        let hash = super::swarm::HASH;
        format!("/announce?info_hash={hash}&peer_id=aaaaaaaaaaaaaaaaaaaa&port=6881&left=1{ticket}")
    };
    let failed = |answer: &[u8]| answer.windows(14).any(|part| part == b"failure reason");
    for no in ["", "&t=", "&t=00"] {
        assert!(failed(&get(announce(no), None).await.1), "{no}");
    }
    for no in ["", "t=/", "t=00/"] {
        assert_eq!(get(format!("/images/{no}{payload}"), None).await.0, StatusCode::FORBIDDEN, "{no}");
    }
    // A terminal gets a ticket with its job, a person a torrent that has one.
    let ticket = world.begin(A).await.task.ticket.expect("it is not open");
    assert!(!failed(&get(announce(&format!("&t={ticket}")), None).await.1));
    assert_eq!(get(format!("/images/t={ticket}/{payload}"), None).await.0, StatusCode::OK);
    let outside = format!("/images/t={ticket}/../../secret");
    assert_eq!(get(outside, None).await.0, StatusCode::NOT_FOUND);
    let teacher = token(&world, "teacher", Some("101")).await.token;
    let path = "/torrents/golden/format-1.torrent";
    let (theirs, nobodys) = (get(path.into(), Some(&teacher)).await.1, get(path.into(), None).await.1);
    let trackers = |bytes: &[u8]| crate::metainfo::Metainfo::parse(bytes).expect("a torrent").trackers;
    assert!(trackers(&theirs)[0].contains("?t=") && trackers(&nobodys)[0].ends_with("/announce"));

    for open in ["open_images = true\n", "open_images = ['golden']\n"] {
        let world = abroad(open).await;
        let address = world.abroad(&format!("/images/{payload}"));
        assert_eq!(world.http.get(address).send().await.expect("an answer").status(), StatusCode::OK);
        let answer = world.http.get(world.abroad(&announce(""))).send().await.expect("an answer");
        assert!(!failed(&answer.bytes().await.expect("bytes")));
    }
}
