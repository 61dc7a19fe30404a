//! Configuration files, and the errors of invalid ones.

use super::*;
use crate::server::domain::identity::Identity;

const MAC: &str = "52:54:00:12:34:56";

#[test]
fn the_printed_sample_is_a_configuration() {
    let config = Config::parse(SAMPLE).expect("sample");
    let who = Identity::new(&[MAC], None);
    assert_eq!(config.label(&who), Some("lab-01"));
    assert_eq!(config.tracker, TrackerConfig::default());
    assert_eq!(config.history.keep(), Duration::from_secs(365 * 24 * 3600));
    assert_eq!(config.compress, Compress::Auto);
    assert_eq!(Config::parse("compress = 'off'").expect("valid").compress, Compress::Off);
    assert_eq!((config.zones.len(), config.zones[0].links, config.pins.len()), (2, 2, 1));
}

#[test]
fn an_empty_file_assigns_nothing() {
    assert_eq!(Config::parse("").expect("empty"), Config::default());
}

#[test]
fn mistakes_are_named_with_their_line() {
    for (text, expected) in [
        ("colour = 'red'".to_string(), "line 1"),
        ("compress = 'a little'".into(), "line 1"),
        ("[[job]]\nname='x'\nimage='a'\nterminals='all'".into(), "flashmob job create a all"),
        ("[tracker]\ninterval='1s'\nyoung_interval='2s'".into(), "young_interval"),
        ("[tracker]\ninterval='999999999999999h'".into(), "not be more than 1h"),
        (
            "[terminals.'52:54:00:00:00:01']\nlabel='x'\n[terminals.'52:54:00:00:00:02']\nlabel='x'".into(),
            "the label 'x' is given to both",
        ),
        ("[history]\nkeep_days=0".into(), "keep_days must be 1 to 36500"),
        ("[history]\nkeep_days=99999999".into(), "keep_days must be 1 to 36500"),
        ("[history]\nkeep_days='a year'".into(), "line 2"),
        ("[terminals.'lab-01']\nlabel='x'".into(), "MAC"),
        ("[limits]\nnew_terminals=0".into(), "from 1 to 10000"),
        ("[[zone]]\nname='a'\nnetworks=['10.0.0.0/33']".into(), "line 3"),
        ("[[group]]\nname='a'".into(), "group 'a' needs terminals, networks, zones or models"),
        (
            "[[group]]\nname='a'\nmodels=['x']\n[[group]]\nname='a'\nmodels=['y']".into(),
            "group 'a' is there twice",
        ),
        ("[[group]]\nname='a;b'\nmodels=['x']".into(), "'a;b' cannot be a group"),
        ("[[group]]\nname='a'\nmodels=['']".into(), "an empty model"),
        ("[[group]]\nname='a'\nzones=['attic']".into(), "'attic', which is no zone"),
        ("[[group]]\nname='a'\nnetworks=['10.0.0.0/99']".into(), "line 3"),
        ("[[pin]]\nterminal='10.0.0.1'\nfrom=['10.0.0.1']".into(), "other terminals"),
        ("[[zone]]\nname='a'\nnetworks=['10.0.0.0/8']\nfrom=['b']".into(), "'b', which is no zone"),
    ] {
        let error = Config::parse(&text).expect_err(&text);
        assert!(error.contains(expected), "{text}\n{error}");
    }
}
