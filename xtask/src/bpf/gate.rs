//! What an eBPF object must not contain, and how long its functions are.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result, bail};

use super::toolchain::Toolchain;
use crate::run::{output, run, say};

/// Refuses an object in which a panic is left: the kernel's verifier would
/// refuse it too, but only at load time and with a message about something else.
pub(super) fn no_panic(toolchain: &Toolchain, object: &Path) -> Result<()> {
    let symbols = output(toolchain.llvm("llvm-nm").arg(object))?;
    let found = panics(&symbols);
    if !found.is_empty() {
        bail!("a path to a panic is left in the eBPF object:\n  {}", found.join("\n  "));
    }
    Ok(())
}

/// The symbols, of those that `llvm-nm` printed, that belong to panics.
fn panics(symbols: &str) -> Vec<&str> {
    symbols.lines().filter(|line| line.contains("panicking")).collect()
}

/// Refuses an object whose BTF has a forward declaration: LLVM orders those
/// by the value of a pointer, so the object would not be reproducible.
pub(super) fn no_forward_declaration(toolchain: &Toolchain, object: &Path) -> Result<()> {
    let btf = object.with_extension("btf");
    run(toolchain
        .llvm("llvm-objcopy")
        .arg(format!("--dump-section=.BTF={}", btf.display()))
        .arg(object)
        .arg("/dev/null"))?;
    let names =
        forward_declarations(&fs::read(&btf)?).context("the object's .BTF cannot be read")?;
    if !names.is_empty() {
        bail!(
            "the BTF has forward declarations, so the object is not reproducible: {}\n\
             (a context or map type has a pointer to a type that is not defined)",
            names.join(", ")
        );
    }
    Ok(())
}

const MAGIC: u32 = 0xeb9f;
/// `BTF_KIND_FWD`.
const FORWARD: u32 = 7;

/// The names of the forward declarations in a .BTF section; `None` if it is
/// not one. Layout: the kernel's Documentation/bpf/btf.rst.
fn forward_declarations(btf: &[u8]) -> Option<Vec<String>> {
    let u32_at = |at: usize| Some(u32::from_le_bytes(*btf.get(at..)?.first_chunk()?));
    let size_at = |at: usize| usize::try_from(u32_at(at)?).ok();
    if u32_at(0)? & 0xffff != MAGIC {
        return None;
    }
    let (header, types, types_len, strings) =
        (size_at(4)?, size_at(8)?, size_at(12)?, size_at(16)?);
    let name = |offset: usize| {
        let text = btf.get(header.checked_add(strings)?.checked_add(offset)?..)?;
        Some(String::from_utf8_lossy(text.split(|octet| *octet == 0).next()?).into_owned())
    };
    let mut found = Vec::new();
    let mut at = header.checked_add(types)?;
    let end = at.checked_add(types_len)?;
    while at < end {
        let info = u32_at(at + 4)?;
        let (kind, members) = (info >> 24 & 0x1f, usize::try_from(info & 0xffff).ok()?);
        if kind == FORWARD {
            found.push(name(size_at(at)?)?);
        }
        let more = match kind {
            1 | 14 | 17 => 4,                // INT, VAR, DECL_TAG
            3 => 12,                         // ARRAY
            4 | 5 | 15 | 19 => 12 * members, // STRUCT, UNION, DATASEC, ENUM64
            6 | 13 => 8 * members,           // ENUM, FUNC_PROTO
            2 | 7..=12 | 16 | 18 => 0,       // PTR, FWD, TYPEDEF … RESTRICT, FUNC, FLOAT, TYPE_TAG
            _ => return None,
        };
        at = at.checked_add(12)?.checked_add(more)?;
    }
    Some(found)
}

/// Says how many instructions each function has, the longest first.
pub(super) fn stats(toolchain: &Toolchain, object: &Path) -> Result<()> {
    let symbols = output(toolchain.llvm("llvm-nm").args(["-CS", "--size-sort", "-r"]).arg(object))?;
    say("instructions  function");
    let mut total = 0;
    for line in symbols.lines() {
        // Address, size, kind, and a name that may hold blanks.
        let mut words = line.splitn(4, ' ').skip(1);
        let (Some(size), Some(kind), Some(name)) = (words.next(), words.next(), words.next())
        else {
            continue;
        };
        if kind.eq_ignore_ascii_case("t") {
            let instructions = u64::from_str_radix(size, 16)? / 8;
            total += instructions;
            say(&format!("{instructions:>12}  {name}"));
        }
    }
    say(&format!("{total:>12}  in all"));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A .BTF section: one INT, and what `more` appends to the types.
    fn btf(more: &[[u32; 3]]) -> Vec<u8> {
        let mut types: Vec<u32> = vec![1, 1 << 24, 4, 32];
        types.extend(more.iter().flatten());
        let types_len = u32::try_from(types.len() * 4).unwrap();
        let strings = b"\0int\0bpf_sock\0";
        let header =
            [MAGIC | 1 << 16, 24, 0, types_len, types_len, strings.len().try_into().unwrap()];
        let words = header.iter().chain(&types);
        words.flat_map(|word| word.to_le_bytes()).chain(*strings).collect()
    }

    #[test]
    fn a_forward_declaration_is_found_behind_other_types() {
        assert_eq!(forward_declarations(&btf(&[])), Some(vec![]));
        assert_eq!(
            forward_declarations(&btf(&[[0, 2 << 24, 1], [5, FORWARD << 24, 0]])),
            Some(vec!["bpf_sock".to_owned()])
        );
    }

    #[test]
    fn what_is_not_btf_is_not_read() {
        assert_eq!(forward_declarations(b"\x7fELF"), None);
        assert_eq!(forward_declarations(&btf(&[[0, 30 << 24, 0]])), None);
        let whole = btf(&[[5, FORWARD << 24, 0]]);
        assert_eq!(forward_declarations(&whole[..40]), None);
    }

    #[test]
    fn a_panic_symbol_is_found() {
        let symbols = "0000 T ipvs_xdp\n     U _ZN4core9panicking18panic_bounds_check17h\n";
        assert_eq!(panics(symbols).len(), 1);
        assert!(panics("0000 T ipvs_xdp\n").is_empty());
    }
}
