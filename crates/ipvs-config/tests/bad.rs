//! Bad files and what is said of them: `bad.txt` holds each file, then behind
//! `=> ` the message, then an empty line.
#![expect(clippy::tests_outside_test_module, reason = "the whole file is a test module")]

use std::fmt::Write as _;

#[test]
fn each_bad_file_is_refused_with_the_place_and_the_reason() {
    let cases: Vec<_> = include_str!("bad.txt").split_terminator("\n\n").collect();
    assert!(cases.len() >= 60, "only {} cases", cases.len());
    let mut wrong = String::new();
    for case in cases {
        let (text, expected) = case.trim_end().rsplit_once("=> ").unwrap();
        let said = match ipvs_config::read("f", text) {
            Ok(_) => "nothing".to_owned(),
            Err(error) => error.to_string(),
        };
        if said.lines().collect::<Vec<_>>() != [expected] {
            let _ = write!(wrong, "{text}=> {said}\n\n");
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
}

#[test]
fn the_documented_file_is_right() {
    let text = include_str!("../../../docs/configuration.md");
    let example = text.split("```toml\n").nth(1).and_then(|rest| rest.split("```").next());
    let wanted = ipvs_config::read("f", example.unwrap()).unwrap();
    let dests: Vec<_> = wanted.services.iter().map(|service| service.dests.len()).collect();
    assert_eq!((dests, wanted.settings.len()), (vec![1, 1], 2));
    let health = &wanted.services[0].health;
    assert_eq!((health.checks.len(), health.quorum), (1, 3));
}
