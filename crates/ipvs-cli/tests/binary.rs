//! The binary itself, against a socket served in this process.
#![expect(clippy::tests_outside_test_module, reason = "the whole file is a test module")]

use std::fs;
use std::io::Write;
use std::os::fd::OwnedFd;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::thread;

use ipvs_netlink::{Access, Conversation};
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketAddrUnix, SocketFlags, SocketType, accept, bind,
    listen, recv, send, socket_with,
};
use small_table::SmallTable;

#[path = "../../ipvs-netlink/tests/support/mod.rs"]
mod small_table;

const HEADER: &str = "IP Virtual Server version 1.2.1 (size=4096)
Prot LocalAddress:Port Scheduler Flags
  -> RemoteAddress:Port           Forward Weight ActiveConn InActConn
";

/// A director behind a socket, and the tool under its names, in a folder of
/// their own.
struct World {
    folder: PathBuf,
}

impl World {
    fn new(name: &str) -> Self {
        let folder = std::env::temp_dir().join(format!("ipvs-cli-{name}-{}", std::process::id()));
        fs::create_dir_all(&folder).expect("a folder");
        for name in ["ipvs", "ipvsadm", "ipvsadm-save", "ipvsadm-restore"] {
            symlink(env!("CARGO_BIN_EXE_ipvs"), folder.join(name)).expect("a link");
        }
        Self { folder }
    }

    /// Begins to serve an empty table, one client after another.
    fn serve(&self) {
        let kind = SocketType::SEQPACKET;
        let socket = socket_with(AddressFamily::UNIX, kind, SocketFlags::CLOEXEC, None);
        let socket = socket.expect("a socket");
        let addr = SocketAddrUnix::new(self.socket()).expect("a short path");
        bind(&socket, &addr).expect("a name for the socket");
        listen(&socket, 8).expect("a socket that listens");
        thread::spawn(move || {
            let mut table = SmallTable::default();
            while let Ok(client) = accept(&socket) {
                serve_client(&client, &mut table);
            }
        });
    }

    fn socket(&self) -> PathBuf {
        self.folder.join("sock")
    }

    /// Runs the program called `name`, with this on its standard input.
    fn run(&self, name: &str, args: &[&str], input: &str) -> Output {
        let mut child = Command::new(self.folder.join(name))
            .args(args)
            .env("IPVS_SOCKET", self.socket())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the program starts");
        let mut stdin = child.stdin.take().expect("a pipe");
        // A program that does not read its input may be gone already.
        drop(stdin.write_all(input.as_bytes()));
        drop(stdin);
        child.wait_with_output().expect("the program ends")
    }

    /// Checks what a program prints and its exit status.
    #[track_caller]
    fn check(
        &self,
        name: &str,
        args: &[&str],
        input: &str,
        (stdout, stderr, status): (&str, &str, i32),
    ) {
        let output = self.run(name, args, input);
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let got = (text(&output.stdout), text(&output.stderr), output.status.code());
        assert_eq!(got, (stdout.to_owned(), stderr.to_owned(), Some(status)));
    }
}

impl Drop for World {
    fn drop(&mut self) {
        drop(fs::remove_dir_all(&self.folder));
    }
}

fn serve_client(client: &OwnedFd, table: &mut SmallTable) {
    let mut conversation = Conversation::new(Access::Admin);
    let mut buffer = vec![0; 65536];
    while let Ok((_, len)) = recv(client, buffer.as_mut_slice(), RecvFlags::empty()) {
        let Some(request) = buffer.get(..len).filter(|request| !request.is_empty()) else { break };
        conversation.serve(request, table, &mut |reply| {
            // A client that has hung up needs no answer.
            let _ = send(client, reply, SendFlags::NOSIGNAL);
        });
    }
}

#[test]
fn the_programs_change_and_show_a_table_over_the_socket() {
    let world = World::new("table");
    world.serve();
    world.check("ipvsadm", &["-A", "-t", "192.0.2.10:80", "-s", "rr"], "", ("", "", 0));
    let taken = ("", "Service already exists\n", 255);
    world.check("ipvsadm", &["-A", "-t", "192.0.2.10:80"], "", taken);
    let line = format!("{HEADER}TCP  192.0.2.10:80 rr\n");
    world.check("ipvsadm", &["-Ln"], "", (&line, "", 0));
    world.check("ipvsadm-save", &["-n"], "", ("-A -t 192.0.2.10:80 -s rr\n", "", 0));
    let lines = "# saved\n-A -u 192.0.2.11:53 -s wlc\n-a -u 192.0.2.11:53 -r 10.1.0.11 -m\n";
    world.check("ipvsadm-restore", &[], lines, ("", "", 0));
    let saved = "-A -u 192.0.2.11:53 -s wlc\n-a -u 192.0.2.11:53 -r 10.1.0.11:53 -m -w 1\n";
    world.check("ipvsadm", &["-S", "-n"], "", (saved, "", 0));
    world.check(
        "ipvsadm",
        &["-C", "-n"],
        "",
        ("", "Illegal 'numeric' option with the 'flush' command\n", 2),
    );
}

#[test]
fn a_listing_as_json_has_what_all_listings_show() {
    let world = World::new("json");
    world.serve();
    let lines = "-A -t 192.0.2.10:80 -s sh -b sh-port -p 60 -M 255.255.255.0
-a -t 192.0.2.10:80 -r 10.1.0.11 -i --tun-type gue --tun-port 6080 -w 3 -x 9 -y 2
-A -f 7 -6 -s rr
--start-daemon master --mcast-interface c0 --syncid 5
";
    world.check("ipvsadm", &["-R"], lines, ("", "", 0));
    let json = |args: &[&str]| -> serde_json::Value {
        let output = world.run("ipvsadm", args, "");
        serde_json::from_slice(&output.stdout).expect("JSON")
    };
    let table = json(&["-L", "--json"]);
    let at = |path: &str| table.pointer(path).expect(path).clone();
    assert_eq!(at("/size"), 4096);
    assert_eq!(at("/services/0/address"), "192.0.2.10");
    assert_eq!(at("/services/0/scheduler_flags"), "sh-port");
    assert_eq!(at("/services/0/persistence/mask"), "255.255.255.0");
    assert_eq!(at("/services/0/destinations/0/port"), 80);
    assert_eq!(at("/services/0/destinations/0/tunnel/port"), 6080);
    assert_eq!(at("/services/0/destinations/0/upper_threshold"), 9);
    assert_eq!(at("/services/0/destinations/0/statistics/bytes_in"), 0);
    assert_eq!(at("/services/1/fwmark"), 7);
    assert_eq!(at("/services/1/ipv6"), true);
    let one = json(&["-L", "-f", "7", "-6", "--json"]);
    assert_eq!(one.pointer("/services/0/fwmark"), Some(&7.into()));
    assert_eq!(one.pointer("/services/1"), None);
    let daemons = json(&["-L", "--daemon", "--json"]);
    assert_eq!(daemons.pointer("/daemons/0/sync_id"), Some(&5.into()));
    assert_eq!(json(&["-L", "--timeout", "--json"]).pointer("/tcp"), Some(&900.into()));
    assert_eq!(json(&["-Lc", "--json"]).pointer("/connections"), Some(&serde_json::json!([])));
    let wrong = ("", "Illegal 'json' option with the 'flush' command\n", 2);
    world.check("ipvsadm", &["-C", "--json"], "", wrong);
}

#[test]
fn thresholds_are_saved_on_request_and_restored() {
    let world = World::new("full");
    world.serve();
    let lines = "-A -t 192.0.2.10:80 -s rr\n-a -t 192.0.2.10:80 -r 10.1.0.11:80 -m -w 1";
    let full = format!("{lines} -x 9 -y 2\n");
    world.check("ipvsadm", &["-R"], &full, ("", "", 0));
    world.check("ipvsadm", &["-S", "-n"], "", (&format!("{lines}\n"), "", 0));
    world.check("ipvsadm", &["-S", "-n", "--full"], "", (&full, "", 0));
}

#[test]
fn a_restore_is_all_or_nothing_on_request_and_names_the_line_at_fault() {
    let world = World::new("atomic");
    world.serve();
    let restore = |lines: &str, text: &str, status| {
        world.check("ipvsadm", &["-R", "--atomic"], lines, ("", text, status));
    };
    let first = "-A -t 192.0.2.10:80 -s rr\n-a -t 192.0.2.10:80 -r 10.1.0.11:80 -m -w 1\n";
    restore(&format!("# saved\n\n{first}"), "", 0);
    let good = "-A -u 192.0.2.11:53 -s wlc\n\n# none\n-D -t 192.0.2.10:80\n";
    for (line, text, status) in [
        ("-A -u 192.0.2.11:53", "line 5: Service already exists", 255),
        ("-a -t 192.0.2.10:80 -r 10.1.0.12 -m", "line 5: Service not defined", 255),
        ("-A -t 192.0.2.12:80 -s nosuch", "line 5: Scheduler or persistence engine not found", 255),
        ("-A -t nonsense:x", "line 5: illegal virtual server address[:port] specified", 2),
        ("-A -t 192.0.2.12:80 --nosuch", "line 5: --nosuch: unknown option", 255),
        ("-L", "line 5: the 'list' command changes nothing", 2),
        ("-R", "line 5: the 'restore' command changes nothing", 2),
        ("-h", "line 5: this is no command that changes something", 2),
        ("nonsense", "line 5: this is no command that changes something", 2),
    ] {
        let text = format!("{text} (nothing was changed)\n");
        restore(&format!("{good}{line}\n-C\n"), &text, status);
        world.check("ipvsadm", &["-Sn"], "", (first, "", 0));
    }
    restore(good, "", 0);
    world.check("ipvsadm", &["-Sn"], "", ("-A -u 192.0.2.11:53 -s wlc\n", "", 0));
    let wrong = ("", "Illegal 'atomic' option with the 'save' command\n", 2);
    world.check("ipvsadm", &["-S", "--atomic"], "", wrong);
}

#[test]
fn a_table_is_replaced_at_once_on_request() {
    let world = World::new("replaced");
    world.serve();
    let first = "-A -t 192.0.2.10:80 -s rr\n-a -t 192.0.2.10:80 -r 10.1.0.11:80 -m -w 1\n";
    world.check("ipvsadm-restore", &["--atomic"], first, ("", "", 0));
    let twice = "-A -t 192.0.2.10:80 -s wlc\n-A -t 192.0.2.10:80 -s wlc\n";
    let text = "line 2: Service already exists (nothing was changed)\n";
    world.check("ipvsadm-restore", &["--atomic"], twice, ("", text, 255));
    world.check("ipvsadm", &["-Sn"], "", (first, "", 0));
    world.check("ipvsadm-restore", &["--atomic"], "-A -f 7 -s wlc\n", ("", "", 0));
    world.check("ipvsadm", &["-Sn"], "", ("-A -f 7 -s wlc\n", "", 0));
}

#[test]
fn a_file_is_applied_in_one_step_or_not_at_all() {
    let world = World::new("apply");
    world.serve();
    let path = world.folder.join("ipvs.toml");
    let file = path.to_str().expect("text");
    let run = |command: &str, text: &str, expect: (&str, &str, i32)| {
        fs::write(&path, text).expect("a file");
        world.check("ipvs", &[command, file], "", expect);
    };
    world.check("ipvsadm", &["-A", "-t", "192.0.2.99:80", "-s", "rr"], "", ("", "", 0));
    let service = "[[service]]\naddress = \"192.0.2.10\"\nprotocol = \"tcp\"\nport = 80\n\
        [[service.destination]]\naddress = \"10.1.0.11\"\nweight = 3\n";
    let wanted = format!("timeouts.udp = 60\nsysctl.drop_entry = 3\n{service}");
    let lines = "~ setting drop_entry: \"0\" becomes \"3\"
~ timeouts udp 60 s
- service tcp 192.0.2.99:80
+ service tcp 192.0.2.10:80, scheduler wlc
+ destination 10.1.0.11:80, weight 3, of tcp 192.0.2.10:80
";
    run("plan", &wanted, (lines, "", 2));
    run("apply", &wanted, (lines, "", 0));
    run("plan", &wanted, ("", "", 0));
    run("apply", &wanted, ("", "", 0));
    // The address of a host, but not of one on this network.
    let refused = wanted.replace("10.1.0.11", "10.1.0.255").replace("60", "70");
    let text = "ipvs apply: + destination 10.1.0.255:80, weight 3, of tcp 192.0.2.10:80: \
        invalid argument (nothing was changed)\n";
    run("apply", &refused, ("", text, 1));
    run("plan", &wanted, ("", "", 0));
    let text = format!("ipvs apply: {file}:1:10: unknown key `tpc`, did you mean `tcp`?\n");
    run("apply", "timeouts.tpc = 1\n", ("", &text, 1));
}

#[test]
fn what_was_exported_is_what_runs_and_can_be_applied_elsewhere() {
    let [one, other] = ["export-one", "export-other"].map(World::new);
    [&one, &other].into_iter().for_each(World::serve);
    one.check("ipvsadm", &["-R"], HELD, ("", "", 0));
    one.check("ipvs", &["mark", "add", "7", "--to", "192.0.2.0/24"], "", ("", "", 0));
    let output = one.run("ipvs", &["export"], "");
    assert_eq!(
        (String::from_utf8_lossy(&output.stderr).as_ref(), output.status.code()),
        ("", Some(0))
    );
    let path = one.folder.join("exported.toml");
    fs::write(&path, &output.stdout).expect("a file");
    let file = path.to_str().expect("text");
    one.check("ipvs", &["plan", file], "", ("", "", 0));
    assert!(other.run("ipvs", &["apply", file], "").status.success());
    assert_eq!(held(&other), held(&one));
    assert_eq!(other.run("ipvs", &["export"], "").stdout, output.stdout);
    let rules = other.run("ipvs", &["mark", "list"], "").stdout;
    assert_eq!(String::from_utf8_lossy(&rules), "7 --to 192.0.2.0/24\n");
}

#[test]
fn what_cannot_be_imported_is_named_and_counted() {
    let world = World::new("import");
    let path = world.folder.join("k.conf");
    let file = path.to_str().expect("text");
    let import = |text: &str, expect: (&str, &str, i32)| {
        fs::write(&path, text).expect("a file");
        world.check("ipvs", &["import", "keepalived.conf", file], "", expect);
    };
    let made = "[[service]]\naddress = \"192.0.2.10\"\nprotocol = \"udp\"\nport = 53\n\
        scheduler = \"rr\"\n[[service.destination]]\naddress = \"10.1.0.11\"\n\
        method = \"masquerade\"\nweight = 0\n";
    let service = "virtual_server 192.0.2.10 53 {\n lb_algo rr\n protocol UDP\n \
        real_server 10.1.0.11 53 {\n weight 0\n}\n}\n";
    import(service, (made, "", 0));
    for (text, line, said) in [
        ("vrrp_instance VI_1 {\n state MASTER\n}", 8, "vrrp_instance VI_1: no virtual server"),
        ("global_defs {\n router_id x\n}", 9, "router_id x: not carried over"),
        (
            "include nosuch.conf",
            8,
            &format!("there is no file {}/nosuch.conf", world.folder.display()),
        ),
        (
            "@here virtual_server 192.0.2.11 80 {\n weight 2\n}",
            8,
            "@here virtual_server 192.0.2.11 80: only for a configuration id",
        ),
        ("$RS= \\\n real_server 10.1.0.12 80 \\\n", 8, "a definition of several lines"),
        (
            "virtual_server group nosuch {\n}",
            8,
            "virtual_server group nosuch: there is no group nosuch",
        ),
        ("virtual_server 192.0.2.10 53 {\n protocol UDP\n}", 8, "this service is there already"),
        (
            "virtual_server 192.0.2.11 80 {\n lb_algo no\n}",
            8,
            "this service: unknown scheduler `no`, did you mean `fo`?",
        ),
        (
            "virtual_server 192.0.2.11 {\n}",
            8,
            "this service: a service for every port (0) needs persistence",
        ),
        ("virtual_server here 80 {\n}", 8, "virtual_server here 80: `here` is no address"),
        ("virtual_server fwmark 0 {\n}", 8, "virtual_server fwmark 0: this is no firewall mark"),
        ("}", 8, "this ends no block"),
        ("vrrp_script x {", 8, "this block has no end"),
    ] {
        fs::write(&path, format!("{service}{text}\n")).expect("a file");
        let output = world.run("ipvs", &["import", "keepalived.conf", file], "");
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(stderr.lines().next(), Some(format!("{file}:{line}: {said}").as_str()));
        assert_eq!(String::from_utf8_lossy(&output.stdout), made, "{text}");
        assert_eq!(output.status.code(), Some(2));
    }
    // Within a virtual server.
    for (text, said) in [
        ("delay_loop soon", "no time in seconds"),
        ("quorum 0", "no number from 1 on"),
        ("warmup 3", "checks begin at once"),
        ("quorum_up /bin/true", "nothing is run or told here"),
        ("nonsense", "this is not known here"),
        ("lvs_method NAT type ipip", "no type of tunnel"),
        ("protocol ICMP", "no protocol of IPVS, so TCP"),
        ("persistence_timeout soon", "no time in seconds"),
        ("weight -1", "no number from 0 to 2147483647"),
    ] {
        let conf = service.replace("lb_algo rr\n", &format!("lb_algo rr\n {text}\n"));
        let left_out = format!("{file}:3: {text}: {said}\nipvs import: left out: 1\n");
        import(&conf, (made, &left_out, 2));
    }
    // With its block, which is of nothing else.
    let block = "lb_algo rr\n @here real_server 10.1.0.12 53 {\n weight 2\n }\n";
    let said = format!(
        "{file}:3: @here real_server 10.1.0.12 53: only for a configuration id\n\
         ipvs import: left out: 1\n"
    );
    import(&service.replace("lb_algo rr\n", block), (made, &said, 2));
    let missing = world.run("ipvs", &["import", "ipvsadm-save", "/nonexistent"], "");
    assert_eq!(missing.status.code(), Some(1));
    let saved = ("-A -u 192.0.2.10:53 -s rr\n-a -u 192.0.2.10:53 -r 10.1.0.11 -m -w 0\n", made);
    world.check("ipvs", &["import", "ipvsadm-save", "-"], saved.0, (saved.1, "", 0));
}

#[test]
fn health_checks_of_keepalived_are_carried_over() {
    let world = World::new("checks");
    let path = world.folder.join("keepalived.conf");
    fs::write(&path, include_str!("checks.conf")).expect("a file");
    let file = path.to_str().expect("a path");
    let output = world.run("ipvs", &["import", "keepalived.conf", file], "");
    let left_out = format!(
        "{file}:28: digest 9b3a0c85a887a256d6939da88aabd8cd: no digest is made: `body` searches \
         for a text\n{file}:47: PING_CHECK: there is no such check here\nipvs import: left out: 2\n"
    );
    assert_eq!(String::from_utf8_lossy(&output.stderr), left_out);
    assert_eq!(String::from_utf8_lossy(&output.stdout), include_str!("checks.toml"));
}

#[test]
fn a_time_of_trial_has_its_unit() {
    let world = World::new("trial");
    world.serve();
    let path = world.folder.join("ipvs.toml");
    fs::write(&path, "timeouts.udp = 60\n").expect("a file");
    let file = path.to_str().expect("text");
    for bad in ["60", "0s", "25h", "soon", "-1s", ""] {
        let output = world.run("ipvs", &["apply", "--confirm", bad, file], "");
        assert_eq!(output.status.code(), Some(1), "{bad:?}");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(said.contains("from 1s to 24h") || bad.starts_with('-'), "{said}");
    }
    // A director that does not know of trials makes nothing.
    let output = world.run("ipvs", &["apply", "--confirm", "60s", file], "");
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(world.run("ipvs", &["plan", file], "").status.code() == Some(2));
}

/// A configuration with some of everything that a takeover takes over.
const HELD: &str = "--set 100 20 30
-A -t 192.0.2.10:80 -s wrr -p 60 -M 255.255.255.0
-a -t 192.0.2.10:80 -r 10.1.0.12:80 -m -w 3 -x 9 -y 2
-a -t 192.0.2.10:80 -r 10.1.0.11:8080 -m -w 0
-A -f 7 -6 -s sh -b sh-port
-a -f 7 -6 -r [2001:db8:5::11]:0 -i -w 1 --tun-type gue --tun-port 6080 --tun-nocsum
--start-daemon backup --mcast-interface c0 --syncid 5
";

/// What a director has, as it is listed.
fn held(world: &World) -> String {
    let adm = |args: &[&str]| world.run("ipvsadm", args, "").stdout;
    let lists = [
        adm(&["-S", "-n", "--full"]),
        // The destinations as the scheduler meets them.
        adm(&["-L", "-n", "-t", "192.0.2.10:80", "--nosort"]),
        adm(&["-L", "--timeout"]),
        adm(&["-L", "--daemon"]),
        world.run("ipvs", &["sysctl", "-a"], "").stdout,
    ];
    String::from_utf8(lists.concat()).expect("text")
}

/// A director that has something, and one that has nothing.
fn old_and_new(name: &str) -> [World; 2] {
    let worlds = ["old", "new"].map(|which| World::new(&format!("{name}-{which}")));
    worlds.iter().for_each(World::serve);
    let [old, _] = &worlds;
    old.check("ipvsadm", &["-R"], HELD, ("", "", 0));
    let settings = ["sysctl", "-q", "drop_entry=3", "sync_threshold=2 9"];
    old.check("ipvs", &settings, "", ("", "", 0));
    worlds
}

#[test]
fn a_takeover_takes_everything_over() {
    let [old, new] = old_and_new("takeover");
    let from = old.socket().display().to_string();
    let text = "taken over: 2 services with 3 destinations, 1 sync daemon, 2 settings
sync daemon on c0: it is kept and listed, but no messages are sent or taken yet
connections, and the table that they stand in, are left as they are
";
    new.check("ipvs", &["takeover", "--from", &from], "", (text, "", 0));
    assert_eq!(held(&new), held(&old));
}

#[test]
fn a_takeover_is_shown_in_lines_that_do_it() {
    let [old, new] = old_and_new("dry-run");
    let [other, another] = ["other", "another"].map(|which| World::new(&format!("dry-{which}")));
    other.serve();
    let from = old.socket().display().to_string();
    let shown = |world: &World, replace: &[&str]| {
        let args = [&["takeover", "--dry-run", "--from", &from][..], replace].concat();
        world.run("ipvs", &args, "")
    };
    let output = shown(&new, &[]);
    let lines = String::from_utf8(output.stdout).expect("text");
    let settings = "# net.ipv4.vs.drop_entry = 3\n# net.ipv4.vs.sync_threshold = 2\t9\n";
    assert!(lines.starts_with(&format!("{settings}--set 100 20 30\n")), "{lines}");
    assert_eq!(held(&new), held(&other), "nothing was done");
    // A daemon that does not run is one that has nothing.
    let output = shown(&another, &[]);
    assert_eq!(String::from_utf8(output.stdout).expect("text"), lines);
    assert!(String::from_utf8_lossy(&output.stderr).contains("No such file"));
    other.check("ipvsadm", &["-R", "--atomic"], &lines, ("", "", 0));
    let settings = ["sysctl", "-q", "drop_entry=3", "sync_threshold=2 9"];
    other.check("ipvs", &settings, "", ("", "", 0));
    assert_eq!(held(&other), held(&old));
    let again = shown(&other, &["--replace"]).stdout;
    let again = String::from_utf8(again).expect("text");
    assert!(again.starts_with("-C\n--stop-daemon backup\n-A "), "{again}");
}

#[test]
fn a_takeover_spares_what_a_director_has_unless_told_otherwise() {
    let [old, new] = old_and_new("spare");
    let from = old.socket().display().to_string();
    new.check("ipvsadm", &["-A", "-t", "192.0.2.99:80", "-s", "rr"], "", ("", "", 0));
    let before = held(&new);
    for dry_run in [&["--dry-run"][..], &[]] {
        let output = new.run("ipvs", &[&["takeover", "--from", &from], dry_run].concat(), "");
        let text = String::from_utf8_lossy(&output.stderr);
        assert!(text.contains("1 service with 0 destinations"), "{text}");
        assert!(text.contains("--replace"), "{text}");
        assert_eq!(output.status.code(), Some(1));
        assert_eq!(held(&new), before);
    }
    let output = new.run("ipvs", &["takeover", "--replace", "--from", &from], "");
    assert!(output.status.success(), "{output:?}");
    assert_eq!(held(&new), held(&old));
}

#[test]
fn the_socket_can_be_named_before_the_command() {
    let world = World::new("option");
    world.serve();
    let output = Command::new(env!("CARGO_BIN_EXE_ipvs"))
        .args(["adm", "--socket"])
        .arg(world.socket())
        .arg("-Ln")
        .env("IPVS_SOCKET", "/nonexistent")
        .output()
        .expect("the program runs");
    assert_eq!(String::from_utf8_lossy(&output.stdout), HEADER);
}

#[test]
fn without_a_director_the_tool_says_where_it_looked() {
    let world = World::new("none");
    let socket = world.socket();
    let text = format!(
        "Can't initialize ipvs: No such file or directory\n\
        Is `ipvs daemon' running, and may you open its socket {}?\n",
        socket.display()
    );
    world.check("ipvsadm", &["-Ln"], "", ("", &text, 2));
    world.check("ipvsadm-save", &[], "", ("", &text, 2));
    let version = "ipvsadm v1.31 2019/12/24 (compiled with popt and IPVS v1.2.1)\n";
    world.check("ipvsadm", &["-v"], "", (version, "", 0));
}

#[test]
fn a_reader_that_has_had_enough_is_no_failure() {
    let world = World::new("pipe");
    world.serve();
    let lines = (1..3000).map(|port| format!("-A -t 192.0.2.10:{port}\n"));
    let lines = lines.collect::<Vec<_>>().concat();
    world.check("ipvsadm", &["-R"], &lines, ("", "", 0));
    let line = format!("'{}' -Ln | head -n 1; echo ${{PIPESTATUS[0]}}", path(&world, "ipvsadm"));
    let output = Command::new("bash")
        .args(["-c", &line])
        .env("IPVS_SOCKET", world.socket())
        .output()
        .expect("a shell");
    let expect = "IP Virtual Server version 1.2.1 (size=4096)\n0\n";
    assert_eq!(String::from_utf8_lossy(&output.stdout), expect);
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
}

fn path(world: &World, name: &str) -> String {
    let path: &Path = &world.folder.join(name);
    path.display().to_string()
}

#[test]
fn a_log_in_json_has_an_object_in_each_line_and_the_failure_in_the_last() {
    let world = World::new("json-log");
    fs::write(world.socket(), "no socket").expect("a file");
    let args = ["daemon", "--plane", "user", "-v", "--log-format", "json"];
    let output = world.run("ipvs", &args, "");
    assert_eq!(output.status.code(), Some(1));
    let log = String::from_utf8(output.stderr).expect("text");
    let objects: Vec<serde_json::Value> =
        log.lines().map(|line| serde_json::from_str(line).expect(line)).collect();
    let last = objects.last().expect("a line");
    assert_eq!(last["level"], "ERROR", "{log}");
    assert!(last["message"].as_str().is_some_and(|it| it.contains("is no socket")), "{log}");
    assert!(objects.iter().all(|object| object["timestamp"].is_string()), "{log}");
    let output = world.run("ipvs", &["daemon", "--plane", "user"], "");
    let log = String::from_utf8(output.stderr).expect("text");
    assert!(log.starts_with("ipvs daemon: ") && log.contains("is no socket"), "{log}");
}
