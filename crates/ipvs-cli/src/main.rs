//! The one binary: `ipvs`, which is also `ipvsadm`, `ipvsadm-save` and
//! `ipvsadm-restore` when called by one of these names.

use std::process::ExitCode;

fn main() -> ExitCode {
    ipvs_cli::program::run(std::env::args_os().collect())
}
