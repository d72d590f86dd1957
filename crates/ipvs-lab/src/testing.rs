//! For tests that need network namespaces, under the ordinary test harness.

use std::{
    io::{self, Write as _},
    process::{Command, Stdio},
};

use crate::{can_make_namespaces, sys};

/// Set in a process that was started to run one test inside a user namespace.
const INSIDE: &str = "IPVS_LAB_INSIDE";

/// What became of an [`isolated`] test.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The body ran, here or in a process of its own, and passed.
    Ran,
    /// Neither this user nor this kernel allows network namespaces; a line on stderr says so.
    Skipped,
}

/// Runs the body of a test that makes network namespaces.
///
/// With root's rights it runs here. Without, the test program is started again for this one
/// test (`name` is its full name, as in `module::the_test`) inside a new user namespace, because
/// a process with several threads cannot enter one. If that is forbidden too, a line on stderr
/// says that the test was skipped.
///
/// ```no_run
/// #[test]
/// fn namespaces_differ() {
///     ipvs_lab::testing::isolated("namespaces_differ", || {
///         let (a, b) = (ipvs_lab::Namespace::new("a"), ipvs_lab::Namespace::new("b"));
///         assert_ne!(a.and_then(|a| a.id()).ok(), b.and_then(|b| b.id()).ok());
///     });
/// }
/// ```
///
/// # Panics
///
/// If the body does, wherever it ran.
pub fn isolated(name: &str, body: impl FnOnce()) -> Outcome {
    if can_make_namespaces() {
        body();
        return Outcome::Ran;
    }
    if std::env::var_os(INSIDE).is_some() {
        return skipped(name, "the user namespace gives no right to make network namespaces");
    }
    let again = std::env::current_exe().and_then(|program| {
        let mut command = Command::new(program);
        command.args([name, "--exact", "--nocapture", "--test-threads=1"]).env(INSIDE, "1");
        command.stdin(Stdio::null());
        sys::start_in_user_namespace(&mut command);
        command.output()
    });
    match again {
        Err(error) => skipped(name, &format!("no user namespace: {error}")),
        Ok(output) => {
            let text = String::from_utf8_lossy(&output.stdout);
            let errors = String::from_utf8_lossy(&output.stderr);
            assert!(
                output.status.success() && text.contains("1 passed"),
                "{name} failed inside a user namespace:\n{text}\n{errors}"
            );
            if errors.contains("SKIPPED") { skipped(name, "see above") } else { Outcome::Ran }
        }
    }
}

/// Says on the real stderr, past the harness's capture, that a test was skipped.
pub fn skipped(name: &str, reason: &str) -> Outcome {
    // A closed stderr is no reason to fail.
    let _ = writeln!(io::stderr().lock(), "\n*** SKIPPED {name}: {reason} ***");
    Outcome::Skipped
}
