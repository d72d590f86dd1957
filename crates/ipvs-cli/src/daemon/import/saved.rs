//! Lines of `ipvsadm-save`.

use ipvs_config::Service;
use ipvs_config::health::Health;
use ipvs_core::command::Command;
use ipvs_core::service::ServiceFlags;

use super::{Import, Place};
use crate::adm::{self, names::SystemNames};

/// Reads the lines of `file`.
pub(super) fn import(file: &str, text: &str) -> Import {
    let (mut import, names) = (Import::default(), SystemNames::default());
    for (line, words) in (1..).zip(text.lines()) {
        let place = Place { file: file.to_owned(), line };
        match adm::edit_of(words.as_bytes(), &names) {
            Ok(None) => {}
            Ok(Some(edit)) => carry(&mut import, &place, edit),
            Err(error) => import.leave_out(&place, error),
        }
    }
    import
}

fn carry(import: &mut Import, place: &Place, edit: Command) {
    match edit {
        Command::AddService(key, mut spec) => {
            spec.flags &= !ServiceFlags::HASHED;
            let (dests, health) = (Vec::new(), Health::default());
            import.add_service(place, Service { key, spec, dests, health });
        }
        Command::AddDest(key, dest, spec) => import.add_dest(place, &key, (dest, spec)),
        Command::SetTimeouts(edit) => {
            let all = &mut import.wanted.timeouts;
            for (to, from) in [
                (&mut all.tcp, edit.tcp),
                (&mut all.tcp_fin, edit.tcp_fin),
                (&mut all.udp, edit.udp),
            ] {
                if from != 0 {
                    *to = from;
                }
            }
        }
        Command::StartSync(daemon) => {
            if import.wanted.sync.iter().any(|other| other.state == daemon.state) {
                import.leave_out(place, "this sync daemon is there already");
            } else {
                import.wanted.sync.push(daemon);
            }
        }
        _ => import.leave_out(place, "this adds nothing to a configuration"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_ipvsadm_saves_is_carried_over_and_the_rest_is_named() {
        let text = "# saved\n-A -t 192.0.2.10:80 -s wrr -p 60 -M 255.255.255.0\n\
            -a -t 192.0.2.10:80 -r 10.1.0.11:8080 -m -w 3 -x 9 -y 2\n\n\
            -A -f 7 -6 -s sh -b sh-port\n-a -f 7 -6 -r [2001:db8:5::11]:0 -i -w 1\n\
            -a -t 192.0.2.99:80 -r 10.1.0.11 -m\n-C\nnonsense\n-A -t 192.0.2.11:0 -s rr\n\
            --set 100 0 30\n";
        let mut import = import("saved", text);
        let made = import.text();
        let expect = "[timeouts]\ntcp = 100\nudp = 30\n\n[[service]]\naddress = \"192.0.2.10\"\n\
            protocol = \"tcp\"\nport = 80\nscheduler = \"wrr\"\n\
            persistence = { timeout = 60, netmask = 24 }\n[[service.destination]]\n\
            address = \"10.1.0.11\"\nport = 8080\nmethod = \"masquerade\"\nweight = 3\n\
            upper_threshold = 9\nlower_threshold = 2\n\n[[service]]\nfwmark = 7\n\
            family = \"ipv6\"\nscheduler = \"sh\"\nflags = [\"sh-port\"]\n\
            [[service.destination]]\naddress = \"2001:db8:5::11\"\nmethod = \"tunnel\"\nweight = 1\n";
        assert_eq!(made, expect);
        let left_out: Vec<&str> = import.left_out.iter().map(String::as_str).collect();
        assert_eq!(
            left_out,
            [
                "saved:7: there is no such service above",
                "saved:8: this adds nothing to a configuration",
                "saved:9: this is no command that changes something",
                "saved:10: Zero port specified for non-persistent service",
            ]
        );
    }
}
