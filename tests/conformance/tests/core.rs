//! Plain `cargo test` holds the core against every recorded case that
//! `passing.txt` says it must pass.

#![expect(clippy::tests_outside_test_module, reason = "the whole file is a test module")]

use std::path::Path;

use ipvs_conformance::case::Recorded;
use ipvs_conformance::plane::{Plane, run_case};
use ipvs_conformance::report::{Outcome, write_case};
use ipvs_conformance::selection::MustPass;

#[test]
fn the_core_does_what_the_kernel_did() {
    let home = Path::new(env!("CARGO_MANIFEST_DIR"));
    let names = MustPass::load(&home.join("passing.txt")).unwrap().on("core");
    assert!(!names.is_empty(), "passing.txt lists no case for the core");
    let mut told = Vec::new();
    for name in names {
        let recorded = Recorded::load(&home.join("cases").join(&name)).unwrap();
        let outcome = run_case(&recorded, Plane::Core);
        if outcome != Outcome::Passed {
            write_case(&mut told, &name, &recorded.case.title, &outcome, false).unwrap();
        }
    }
    assert!(told.is_empty(), "\n{}", String::from_utf8_lossy(&told));
}
