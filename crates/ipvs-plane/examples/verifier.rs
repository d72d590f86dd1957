//! What this kernel's verifier thinks of the committed eBPF object: a line a
//! program, with its length, the instructions that were followed until it was
//! believed, and the time that took. Loads the programs and lets them go again.

use std::io::{self, Write as _};
use std::process::ExitCode;
use std::time::Instant;

use aya::programs::{Program, ProgramError, ProgramInfo};
use aya::{EbpfLoader, include_bytes_aligned};

static OBJECT: &[u8] = include_bytes_aligned!("../src/bpf/ipvs.bpf.o");

/// Small tables: the verifier does not mind their size.
const ENTRIES: u32 = 64;

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Nobody is left to be told that standard error is closed.
            drop(writeln!(io::stderr().lock(), "error: {error}"));
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<(), Box<dyn std::error::Error>> {
    let mut loader = EbpfLoader::new();
    for name in ["IPVS_CONNS", "IPVS_NEAR", "IPVS_INDEX", "IPVS_FREE", "IPVS_COUNTERS"] {
        loader.map_max_entries(name, ENTRIES);
    }
    let mut object = loader.load(OBJECT)?;
    let mut out = io::stdout().lock();
    writeln!(out, "instructions  followed  milliseconds  program")?;
    for (name, program) in object.programs_mut() {
        let start = Instant::now();
        let info = load(program)?;
        let milliseconds = start.elapsed().as_millis();
        let length = info.size_translated().map_or(0, |octets| octets / 8);
        let followed = info.verified_instruction_count().unwrap_or(0);
        writeln!(out, "{length:>12}  {followed:>8}  {milliseconds:>12}  {name}")?;
    }
    Ok(())
}

fn load(program: &mut Program) -> Result<ProgramInfo, ProgramError> {
    match program {
        Program::Xdp(program) => {
            program.load()?;
            program.info()
        }
        Program::SchedClassifier(program) => {
            program.load()?;
            program.info()
        }
        _ => Err(ProgramError::UnexpectedProgramType),
    }
}
