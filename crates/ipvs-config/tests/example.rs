//! The example that comes with the package.
#![expect(clippy::tests_outside_test_module, reason = "the whole file is a test module")]

const EXAMPLE: &str = include_str!("../../../packaging/ipvs.toml");

#[test]
fn the_example_is_a_configuration_as_it_stands_and_without_its_comment_signs() {
    let nothing = ipvs_config::read("ipvs.toml", EXAMPLE).unwrap();
    assert!(nothing.services.is_empty());
    let (_, lines) = EXAMPLE.split_once("\n#\n").unwrap();
    let lines: Vec<&str> = lines.lines().map(|line| line.trim_start_matches(['#', ' '])).collect();
    let one = ipvs_config::read("ipvs.toml", &lines.join("\n")).unwrap();
    assert_eq!(one.services.len(), 1);
}
