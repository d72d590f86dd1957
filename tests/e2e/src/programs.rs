//! Real programs in front of and behind the director.

use std::fs;
use std::io::{self, Read as _, Seek as _};
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use ipvs_lab::{ChildGuard, Namespace, ServerHost};

use crate::Bed;

/// How long a server may take to listen.
const PATIENCE: Duration = Duration::from_secs(10);

/// Ports at which [`nginx`] listens.
pub const HTTP_PORTS: [u16; 2] = [80, 8080];

/// The path of a program, which may be in an administrator's folder.
pub fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let more = ["/usr/sbin", "/sbin"].map(PathBuf::from);
    let folders = std::env::split_paths(&path).chain(more);
    folders.map(|folder| folder.join(program)).find(|path| path.is_file())
}

/// Runs a program in a namespace to its end, and returns what it printed; its
/// failure is an error.
pub fn run(namespace: &Namespace, program: &str, arguments: &[&str]) -> Result<String> {
    let mut command = namespace.command(find(program).context("program is missing")?)?;
    let (mut stdout, mut stderr) = (tempfile::tempfile()?, tempfile::tempfile()?);
    command.args(arguments).stdin(Stdio::null());
    command.stdout(stdout.try_clone()?).stderr(stderr.try_clone()?);
    let status = namespace.spawn_child(command)?.child().wait()?;
    let text = |file: &mut fs::File| -> Result<String> {
        let mut octets = Vec::new();
        file.rewind()?;
        file.read_to_end(&mut octets)?;
        Ok(String::from_utf8_lossy(&octets).into_owned())
    };
    let output = text(&mut stdout)?;
    if !status.success() {
        bail!("{program} {}: {status}: {output}{}", arguments.join(" "), text(&mut stderr)?);
    }
    Ok(output)
}

/// Starts a program in a namespace, and waits until it listens at all `ports`.
fn serve(namespace: &Namespace, mut command: Command, ports: &[u16]) -> Result<ChildGuard> {
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let mut child = namespace.spawn_child(command)?;
    let deadline = Instant::now() + PATIENCE;
    while !listens(namespace, ports)? {
        if let Some(status) = child.child().try_wait()? {
            bail!("the server ended: {status}");
        }
        ensure!(Instant::now() < deadline, "the server does not listen at {ports:?}");
        // The kernel tells nobody that somebody else's socket has begun to listen.
        thread::sleep(Duration::from_millis(5));
    }
    Ok(child)
}

/// Whether somebody listens at each of the TCP ports.
fn listens(namespace: &Namespace, ports: &[u16]) -> Result<bool> {
    let table = |name: &str| fs::read_to_string(format!("/proc/thread-self/net/{name}"));
    let tables = namespace.run(|| Ok::<_, io::Error>([table("tcp")?, table("tcp6")?]))??;
    // Local and remote address, and state 10.
    let is_at = |line: &str, port: u16| {
        let mut words = line.split_whitespace().skip(1);
        words.next().is_some_and(|local| local.ends_with(&format!(":{port:04X}")))
            && words.nth(1) == Some("0A")
    };
    Ok(ports.iter().all(|port| tables.iter().flat_map(|it| it.lines()).any(|it| is_at(it, *port))))
}

/// A web server on a real server.
#[derive(Debug)]
pub struct Nginx {
    _process: ChildGuard,
    /// What it serves, and where it puts what is sent to it.
    pub root: PathBuf,
}

/// Starts nginx; `/name` is the real server's name, `PUT` stores a file.
pub fn nginx(bed: &Bed, host: &ServerHost) -> Result<Nginx> {
    let folder = bed.folder.path().join(host.name());
    let root = folder.join("www");
    fs::create_dir_all(&root)?;
    fs::write(root.join("name"), host.name())?;
    let at = folder.display();
    let listen: Vec<String> = HTTP_PORTS
        .iter()
        .map(|port| format!("listen {port} backlog=4096; listen [::]:{port} backlog=4096;"))
        .collect();
    let temporary = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .map(|what| format!("{what}_temp_path {at}/{what};"));
    // One process, so that killing it ends it; of root, the only user whom a
    // user namespace has.
    let text = format!(
        "user root root; daemon off; master_process off; pid {at}/pid; error_log {at}/error.log;\n\
         events {{ worker_connections 4096; }}\n\
         http {{ access_log off; sendfile on; keepalive_requests 1000000;\n\
           client_max_body_size 0; {temporary}\n\
           server {{ {listen} root {at}/www; dav_methods PUT; }} }}\n",
        temporary = temporary.join(" "),
        listen = listen.join(" "),
    );
    let file = folder.join("nginx.conf");
    fs::write(&file, text)?;
    let mut command = host.namespace().command(find("nginx").context("nginx is missing")?)?;
    command.arg("-c").arg(&file).arg("-e").arg(folder.join("error.log")).arg("-p").arg(&folder);
    let process = serve(host.namespace(), command, &HTTP_PORTS).with_context(|| {
        fs::read_to_string(folder.join("error.log")).unwrap_or_else(|_| "no log".to_owned())
    })?;
    Ok(Nginx { _process: process, root })
}

/// An FTP server on a real server.
#[derive(Debug)]
pub struct Vsftpd {
    _process: ChildGuard,
    /// What it serves to everybody.
    pub root: PathBuf,
}

/// Starts vsftpd, which calls clients from port 20 where they wish it.
pub fn vsftpd(bed: &Bed, host: &ServerHost) -> Result<Vsftpd> {
    let folder = bed.folder.path().join(format!("ftp-{}", host.name()));
    let root = folder.join("root");
    fs::create_dir_all(&root)?;
    let empty = folder.join("empty");
    fs::create_dir_all(&empty)?;
    let text = format!(
        "background=NO\nlisten=NO\nlisten_ipv6=YES\nanonymous_enable=YES\nno_anon_password=YES\n\
         anon_root={root}\nsecure_chroot_dir={empty}\nrun_as_launching_user=YES\n\
         connect_from_port_20=YES\nseccomp_sandbox=NO\nxferlog_enable=NO\n",
        root = root.display(),
        empty = empty.display(),
    );
    let file = folder.join("vsftpd.conf");
    fs::write(&file, text)?;
    let mut command = host.namespace().command(find("vsftpd").context("vsftpd is missing")?)?;
    command.arg(&file);
    let process = serve(host.namespace(), command, &[21])?;
    Ok(Vsftpd { _process: process, root })
}

/// The port of DNS.
pub const DNS_PORT: u16 = 53;

/// Starts dnsmasq, which answers a question for the text of `name` with the real server's
/// name, from whichever address it was asked at.
pub fn dnsmasq(host: &ServerHost) -> Result<ChildGuard> {
    let mut command = host.namespace().command(find("dnsmasq").context("dnsmasq is missing")?)?;
    // Nothing of this machine's: no configuration, names, servers or leases.
    command.args(["--no-daemon", "--conf-file=/dev/null", "--no-hosts", "--no-resolv"]);
    command.arg(format!("--port={DNS_PORT}"));
    command.arg(format!("--txt-record=name,{}", host.name()));
    serve(host.namespace(), command, &[DNS_PORT])
}

/// What [`sctp`] is made with.
pub const SCTP_NEEDS: [&str; 2] = ["gcc", "/usr/include/usrsctp.h"];

/// Makes the program for both ends of an SCTP association; `sctp.c` says how it is used.
/// The stack is one for user space: many kernels have none.
pub fn sctp(bed: &Bed) -> Result<PathBuf> {
    let (source, program) = (bed.folder.path().join("sctp.c"), bed.folder.path().join("sctp"));
    fs::write(&source, include_str!("sctp.c"))?;
    let mut compiler = Command::new("gcc");
    compiler.args(["-O1", "-o"]).arg(&program).arg(&source).args(["-lusrsctp", "-lpthread"]);
    let output = compiler.output()?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Ok(program)
}

/// Starts `iperf3 -s` at an address of a real server.
pub fn iperf3_server(host: &ServerHost, at: IpAddr, port: u16) -> Result<ChildGuard> {
    let mut command = host.namespace().command(find("iperf3").context("iperf3 is missing")?)?;
    command.args(["-s", "-B", &at.to_string(), "-p", &port.to_string()]);
    serve(host.namespace(), command, &[port])
}

/// What curl gets from a path below an address and port.
pub fn curl(client: &Namespace, at: SocketAddr, path: &str, more: &[&str]) -> Result<String> {
    let url = format!("http://{at}/{path}");
    let mut arguments = vec!["--silent", "--show-error", "--fail", "--globoff"];
    arguments.extend(["--max-time", "20", "--noproxy", "*"]);
    arguments.extend(more);
    arguments.push(&url);
    run(client, "curl", &arguments)
}

/// The SHA-256 of a file.
pub fn sha256(file: &Path) -> Result<String> {
    let output = Command::new("sha256sum").arg(file).output()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.split(' ').next().filter(|sum| sum.len() == 64).map(str::to_owned).context("no hash")
}
