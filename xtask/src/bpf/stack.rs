//! How much stack the deepest chain of calls in an eBPF object takes.
//!
//! The verifier lends a chain of calls 512 octets in all, and kernels before 6.8
//! round each function's share up to 32 of them. A newer kernel takes what an
//! older one refuses, so the build counts as the old ones do.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context as _, Result, bail};
use object::read::elf::ElfFile64;
use object::{Object as _, ObjectSection as _, ObjectSymbol as _, RelocationTarget, SymbolKind};

/// What one chain of calls may take, in octets (`MAX_BPF_STACK`).
const LIMIT: u32 = 512;
/// To a multiple of this a function's share is rounded up.
const ROUNDED_TO: u32 = 32;
/// Octets of an instruction.
const INSTRUCTION: usize = 8;
/// The register that holds the end of a function's stack.
const FRAME: u8 = 10;

/// Section and offset at which a function begins.
type Place = (usize, u64);

#[derive(Debug)]
struct Function {
    name: String,
    /// Octets of stack.
    stack: u32,
    instructions: usize,
    calls: BTreeSet<Place>,
}

/// The deepest chain of calls from each program: its octets, and the
/// functions with theirs.
#[derive(Debug)]
pub(super) struct Chain {
    pub(super) octets: u32,
    pub(super) functions: Vec<(String, u32)>,
}

/// Refuses an object in which a chain of calls takes more stack than a kernel
/// of 6.1 lends.
pub(super) fn fits(object: &[u8]) -> Result<()> {
    for chain in chains(object)? {
        if chain.octets > LIMIT {
            let lines: Vec<String> = chain
                .functions
                .iter()
                .map(|(name, stack)| format!("  {stack:>4}  {name}"))
                .collect();
            bail!(
                "a chain of calls takes {} octets of stack, and Linux 6.1 lends {LIMIT} (each \
                 function's share rounded up to {ROUNDED_TO}):\n{}",
                chain.octets,
                lines.join("\n")
            );
        }
    }
    Ok(())
}

/// The deepest chain from each program.
pub(super) fn chains(object: &[u8]) -> Result<Vec<Chain>> {
    let file = ElfFile64::<object::LittleEndian>::parse(object).context("no ELF file")?;
    let functions = functions(&file)?;
    let text = file.section_by_name(".text").map(|section| section.index().0);
    let programs = functions.keys().filter(|(section, _)| Some(*section) != text);
    Ok(programs.map(|place| deepest(&functions, *place, &mut Vec::new())).collect())
}

/// How many instructions each program has, with every function that it calls or has called
/// back, each once.
pub(super) fn instructions(object: &[u8]) -> Result<BTreeMap<String, usize>> {
    let file = ElfFile64::<object::LittleEndian>::parse(object).context("no ELF file")?;
    let functions = functions(&file)?;
    let text = file.section_by_name(".text").map(|section| section.index().0);
    let programs = functions.iter().filter(|((section, _), _)| Some(*section) != text);
    let count = |(place, program): (&Place, &Function)| {
        let reached = reached(&functions, *place);
        let sum = reached.iter().filter_map(|it| functions.get(it)).map(|it| it.instructions).sum();
        (program.name.clone(), sum)
    };
    Ok(programs.map(count).collect())
}

fn reached(functions: &BTreeMap<Place, Function>, from: Place) -> BTreeSet<Place> {
    let (mut reached, mut next) = (BTreeSet::new(), vec![from]);
    while let Some(place) = next.pop() {
        if reached.insert(place) {
            next.extend(functions.get(&place).into_iter().flat_map(|it| &it.calls));
        }
    }
    reached
}

fn functions(file: &ElfFile64<'_, object::LittleEndian>) -> Result<BTreeMap<Place, Function>> {
    let mut found = BTreeMap::new();
    for symbol in file.symbols().filter(|symbol| symbol.kind() == SymbolKind::Text) {
        let Some(section) = symbol.section_index().filter(|_| symbol.size() > 0) else { continue };
        let code = file.section_by_index(section)?.data()?;
        let start = usize::try_from(symbol.address())?;
        let code = code
            .get(start..start + usize::try_from(symbol.size())?)
            .context("a function that ends behind its section")?;
        let place = (section.0, symbol.address());
        let targets = targets(file, section)?;
        let name = symbol.name().unwrap_or("?").to_owned();
        found.insert(place, read(name, place, code, &targets));
    }
    Ok(found)
}

/// What the instructions of a section refer to, by their offsets.
fn targets(
    file: &ElfFile64<'_, object::LittleEndian>,
    section: object::SectionIndex,
) -> Result<BTreeMap<u64, (Place, bool)>> {
    let mut found = BTreeMap::new();
    for (offset, relocation) in file.section_by_index(section)?.relocations() {
        let RelocationTarget::Symbol(index) = relocation.target() else { continue };
        let symbol = file.symbol_by_index(index)?;
        if let Some(section) = symbol.section_index() {
            let whole_section = symbol.kind() == SymbolKind::Section;
            found.insert(offset, ((section.0, symbol.address()), whole_section));
        }
    }
    Ok(found)
}

/// Reads how much stack a function uses, and whom it calls or has called back.
fn read(
    name: String,
    place: Place,
    code: &[u8],
    targets: &BTreeMap<u64, (Place, bool)>,
) -> Function {
    const LOAD: u8 = 1;
    const STORE: u8 = 2;
    const STORE_REGISTER: u8 = 3;
    const CALL: u8 = 0x85;
    const LOAD_ADDRESS: u8 = 0x18;
    const MOVE: u8 = 0xbf;
    const ADD: u8 = 0x07;
    let mut lowest = 0;
    let mut calls = BTreeSet::new();
    let mut copied_to = None;
    for (offset, instruction) in (place.1..).step_by(INSTRUCTION).zip(code.as_chunks().0) {
        let [op, registers, low, high, imm @ ..]: [u8; INSTRUCTION] = *instruction;
        let (to, from) = (registers & 15, registers >> 4);
        let displacement = i32::from(i16::from_le_bytes([low, high]));
        let imm = i32::from_le_bytes(imm);
        match op & 7 {
            LOAD if from == FRAME => lowest = lowest.min(displacement),
            STORE | STORE_REGISTER if to == FRAME => lowest = lowest.min(displacement),
            _ => {}
        }
        if op == ADD && copied_to == Some(to) {
            lowest = lowest.min(imm);
        }
        copied_to = (op == MOVE && from == FRAME).then_some(to);
        let target = targets.get(&offset);
        // A call within the section needs no relocation; one of a helper has 0 for 1.
        if op == CALL && from == 1 {
            let near = || (place.0, offset.wrapping_add_signed((i64::from(imm) + 1) * 8));
            let far = |&((section, address), whole): &(Place, bool)| {
                let behind = if whole { (i64::from(imm) + 1) * 8 } else { 0 };
                (section, address.wrapping_add_signed(behind))
            };
            calls.insert(target.map_or_else(near, far));
        } else if op == LOAD_ADDRESS
            && let Some(&((section, address), whole)) = target
        {
            // A callback; what is no function is not found later.
            let behind = if whole { i64::from(imm) } else { 0 };
            calls.insert((section, address.wrapping_add_signed(behind)));
        }
    }
    let instructions = code.len() / INSTRUCTION;
    Function { name, stack: lowest.unsigned_abs(), instructions, calls }
}

fn deepest(functions: &BTreeMap<Place, Function>, at: Place, above: &mut Vec<Place>) -> Chain {
    let none = || Chain { octets: 0, functions: Vec::new() };
    let Some(function) = functions.get(&at).filter(|_| !above.contains(&at)) else { return none() };
    above.push(at);
    let below = function.calls.iter().map(|call| deepest(functions, *call, above));
    let mut chain = below.max_by_key(|chain| chain.octets).unwrap_or_else(none);
    above.pop();
    chain.octets += function.stack.max(1).next_multiple_of(ROUNDED_TO);
    chain.functions.insert(0, (function.name.clone(), function.stack));
    chain
}

#[cfg(test)]
mod tests {
    use super::*;

    const OBJECT: &[u8] = include_bytes!("../../../crates/ipvs-plane/src/bpf/ipvs.bpf.o");

    #[test]
    fn the_committed_object_has_programs_with_chains_that_fit() {
        let chains = chains(OBJECT).unwrap();
        assert!(chains.len() >= 3);
        assert!(chains.iter().any(|chain| chain.functions.len() > 1 && chain.octets > 100));
        fits(OBJECT).unwrap();
    }

    #[test]
    fn a_program_counts_with_what_it_calls_each_once() {
        let counts = instructions(OBJECT).unwrap();
        let file = ElfFile64::<object::LittleEndian>::parse(OBJECT).unwrap();
        let own = |name: &str| functions(&file).unwrap().into_values().find(|it| it.name == name);
        let program = own("ipvs_xdp").unwrap();
        assert!(counts["ipvs_xdp"] >= program.instructions);
        assert!(counts.values().sum::<usize>() > 1000);

        let function = |calls: &[Place]| Function {
            name: String::new(),
            stack: 0,
            instructions: 10,
            calls: calls.iter().copied().collect(),
        };
        let circle = BTreeMap::from([
            ((1, 0), function(&[(2, 0), (2, 8)])),
            ((2, 0), function(&[(2, 8)])),
            ((2, 8), function(&[(2, 0)])),
        ]);
        assert_eq!(reached(&circle, (1, 0)).len(), 3);
    }

    #[test]
    fn a_chain_counts_every_function_once_and_rounded_up() {
        let function = |stack: u32, calls: &[Place]| Function {
            name: stack.to_string(),
            stack,
            instructions: 1,
            calls: calls.iter().copied().collect(),
        };
        let functions = BTreeMap::from([
            ((1, 0), function(33, &[(2, 0), (2, 8)])),
            ((2, 0), function(0, &[])),
            ((2, 8), function(65, &[(2, 8), (1, 0)])),
        ]);
        let chain = deepest(&functions, (1, 0), &mut Vec::new());
        assert_eq!(chain.octets, 64 + 96);
    }
}
