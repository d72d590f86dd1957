//! Command lines of the cases, as far as they can be read without a shell.

/// The words of a line that is one plain command; `None` if it needs a shell.
pub fn words(line: &str) -> Option<Vec<String>> {
    const SHELL: &[char] = &['|', '<', '>', ';', '&', '$', '*', '?', '`', '#', '~'];
    if line.contains(SHELL) { None } else { shlex::split(line) }
}

/// The setting and its value, if the words are `sysctl -w net.ipv4.vs.NAME=VALUE`.
pub fn setting(words: &[String]) -> Option<(&str, &str)> {
    match words {
        [sysctl, write, assignment] if sysctl == "sysctl" && write == "-w" => {
            assignment.strip_prefix("net.ipv4.vs.")?.split_once('=')
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_commands_are_split_as_a_shell_would() {
        let split = words("nft 'add chain ip m pre { }' \"a b\"").unwrap();
        assert_eq!(split, ["nft", "add chain ip m pre { }", "a b"]);
        assert_eq!(words("ipvsadm -Sn > /tmp/s1"), None);
    }

    #[test]
    fn a_setting_is_told_from_other_commands() {
        let line = words("sysctl -w net.ipv4.vs.sync_threshold=\"0 0\"").unwrap();
        assert_eq!(setting(&line), Some(("sync_threshold", "0 0")));
        assert_eq!(setting(&words("sysctl -a").unwrap()), None);
    }
}
