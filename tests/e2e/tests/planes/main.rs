//! Real programs through the director, on both planes, each test with a
//! network and a daemon of its own.
//!
//! Without root's rights the tests run in a user namespace, those of the eBPF
//! plane left out. What is left out is said.

#![expect(clippy::indexing_slicing, reason = "this is a test, of its own harness")]

mod adopt;
mod api;
mod atomic;
mod config;
mod control;
mod cpus;
mod datagrams;
mod dns;
mod drain;
mod ftp;
mod health;
mod host;
mod htb;
mod import;
mod ipsec;
mod malformed;
mod manager;
mod metrics;
mod netfilter;
mod sctp;
mod start;
mod streams;
mod tags;
mod trial;
mod tunnels;
mod visitor;
mod web;

use std::ffi::OsString;
use std::io::{self, Write as _};
use std::process::ExitCode;

use anyhow::Result;
use ipvs_e2e::{ALL_PLANES, ALL_WAYS, PLANES, Plane, programs};
use libtest_mimic::{Arguments, Trial};
use rustix::mount::{MountFlags, mount};

/// A test: what it proves, what it needs, on which planes, and how.
type Test = (&'static str, &'static [&'static str], &'static [Plane], fn(Plane) -> Result<()>);

const BPF: &[Plane] = &[Plane::Bpf];
const IN_KERNEL: &[Plane] = &[Plane::Bpf, Plane::Xdp];
const ALL_IN_KERNEL: &[Plane] = &[Plane::Bpf, Plane::Xdp, Plane::Netfilter];
const NETFILTER: &[Plane] = &[Plane::Netfilter];
const USER: &[Plane] = &[Plane::User];

const TESTS: &[Test] = &[
    ("curl_gets_pages_from_all_servers_in_turn", web::NEEDS_CURL, &ALL_WAYS, web::pages),
    ("wrk_finds_no_error", web::NEEDS_WRK, &ALL_PLANES, web::load),
    ("large_bodies_arrive_whole_in_both_directions", web::NEEDS_CURL, &ALL_PLANES, web::bodies),
    ("bodies_arrive_through_every_tunnel", web::NEEDS_CURL, &ALL_PLANES, tunnels::bodies),
    ("datagrams_in_fragments_pass_every_tunnel", &[], &ALL_PLANES, tunnels::datagrams),
    ("an_error_from_inside_a_tunnel_reaches_the_client", &[], &ALL_WAYS, tunnels::path_mtu),
    ("the_director_itself_may_ask_its_services", host::NEEDS, ALL_IN_KERNEL, host::asks),
    (
        "the_director_may_ask_where_its_neighbours_are_forgotten",
        host::NEEDS_IP,
        ALL_IN_KERNEL,
        host::asks_strangers,
    ),
    ("a_server_on_the_director_answers", host::NEEDS, ALL_IN_KERNEL, host::serves),
    ("files_are_had_by_ftp_in_every_way", ftp::NEEDS, &ALL_WAYS, ftp::transfers),
    ("iperf3_streams_in_both_directions", streams::NEEDS, &ALL_PLANES, streams::tcp),
    ("iperf3_sends_datagrams", streams::NEEDS, &ALL_PLANES, streams::udp),
    ("questions_of_one_port_go_to_name_servers_in_turn", dns::NEEDS, &ALL_WAYS, dns::in_turn),
    (
        "questions_to_forgotten_neighbours_are_scheduled_once",
        dns::NEEDS_IP,
        &ALL_WAYS,
        dns::unresolved,
    ),
    (
        "questions_that_take_the_slow_path_are_scheduled_once",
        dns::NEEDS,
        &ALL_PLANES,
        dns::deferred,
    ),
    (
        "sctp_associations_are_set_up_used_and_shut_down",
        sctp::NEEDS,
        &ALL_PLANES,
        sctp::associations,
    ),
    ("ipsec_goes_where_its_keys_were_exchanged", &[], &ALL_WAYS, ipsec::followed),
    ("datagrams_in_fragments_are_answered_by_such", &[], &ALL_WAYS, datagrams::fragments),
    ("a_killed_daemon_breaks_no_transfer", web::NEEDS_CURL, BPF, adopt::transfer_survives),
    ("the_next_daemon_finds_everything_as_it_was", &[], BPF, adopt::everything_is_found),
    ("sigterm_leaves_the_plane_running", &[], BPF, adopt::sigterm),
    ("detach_leaves_nothing", &[], BPF, adopt::detach),
    ("malformed_packets_are_counted_and_not_forwarded", &[], &ALL_PLANES, malformed::samples),
    (
        "what_is_wrong_behind_the_ip_header_stays_wrong",
        &[],
        &ALL_PLANES,
        malformed::wrong_transport,
    ),
    ("two_cpus_schedule_fairly_and_count_exactly", &[], &ALL_WAYS, cpus::fairness),
    ("a_vlan_tag_stays_behind_on_another_interface", &[], IN_KERNEL, tags::stay_behind),
    (
        "a_class_of_the_network_scheduler_limits_one_service",
        htb::NEEDS,
        &[Plane::Bpf, Plane::Netfilter],
        htb::limited,
    ),
    (
        "what_passes_by_the_firewall_is_noticed_and_reported",
        &["nft"],
        &[Plane::Bpf, Plane::Netfilter, Plane::User],
        netfilter::noticed,
    ),
    (
        "a_firewall_drops_marks_and_limits_what_is_for_services",
        netfilter::NEEDS,
        NETFILTER,
        netfilter::firewall,
    ),
    (
        "the_way_past_the_firewall_is_made_and_unmade",
        netfilter::NEEDS_IP,
        NETFILTER,
        netfilter::way,
    ),
    (
        "keepalived_takes_servers_out_and_in",
        control::NEEDS_KEEPALIVED,
        &PLANES,
        control::keepalived,
    ),
    (
        "what_is_imported_is_what_keepalived_makes_of_it",
        control::NEEDS_KEEPALIVED,
        USER,
        import::keepalived,
    ),
    ("a_vrrp_pair_moves_its_address", control::NEEDS_KEEPALIVED, BPF, control::vrrp),
    ("ldirectord_takes_servers_out_and_in", control::NEEDS_LDIRECTORD, BPF, control::ldirectord),
    ("python_speaks_netlink_and_socket_options", control::NEEDS_PYTHON, USER, control::python),
    ("a_refused_command_changes_nothing", &[], &PLANES, api::refused_commands),
    ("an_atomic_restore_is_made_wholly_or_not_at_all", &[], &PLANES, atomic::restore),
    ("a_takeover_makes_the_services_of_another_director", &[], &PLANES, atomic::takeover),
    ("what_nobody_confirms_is_rolled_back", &[], &PLANES, trial::rolled_back),
    ("what_is_confirmed_stays", &[], &PLANES, trial::confirmed),
    ("the_next_daemon_knows_the_way_back", &[], BPF, trial::survives_the_daemon),
    ("a_daemon_begins_with_its_file_and_reads_it_again", &[], &PLANES, config::read_again),
    ("a_bad_file_starts_nothing_and_stops_nothing", &[], &PLANES, config::bad_file),
    ("who_fails_its_checks_is_out_until_it_passes", health::NEEDS, &PLANES, health::out_and_in),
    ("who_comes_up_gets_its_weight_little_by_little", health::NEEDS, &PLANES, health::slowly),
    ("a_lost_quorum_calls_the_sorry_server", health::NEEDS, &PLANES, health::quorum),
    ("who_was_down_stays_so_until_checked", health::NEEDS, &PLANES, health::restart),
    ("checks_that_have_not_changed_go_on", health::NEEDS, &PLANES, health::reload),
    ("checks_are_planned_applied_and_rolled_back", health::NEEDS, &PLANES, health::applied),
    ("a_program_asks_for_a_weight", health::NEEDS_SETPRIV, &PLANES, health::weights),
    ("a_drained_server_gets_nothing_new_and_is_reset_at_the_deadline", &[], &ALL_WAYS, drain::tcp),
    ("datagrams_leave_a_drained_server_at_the_deadline", &[], &ALL_PLANES, drain::udp),
    ("a_drain_of_nothing_is_refused", &[], USER, drain::refused),
    ("half_a_transaction_leaves_nothing", &[], USER, atomic::half),
    ("nonsense_on_the_socket_harms_nobody", &[], USER, api::nonsense),
    ("a_client_that_does_not_read_delays_nobody", &[], USER, api::slow_client),
    ("a_flood_of_malformed_messages_changes_nothing", &[], USER, api::flood),
    ("two_hundred_clients_are_served_at_once", &[], USER, api::many_clients),
    ("rights_go_by_user_and_group", api::NEEDS_OTHER_USER, BPF, api::rights),
    ("prometheus_scrapes_what_the_director_does", metrics::NEEDS, &PLANES, metrics::scraped),
    ("metrics_are_served_while_services_are_restored", &[], &PLANES, metrics::while_restoring),
    ("metrics_need_an_address_of_their_own", &[], BPF, metrics::address_in_use),
    ("the_service_manager_hears_how_the_daemon_stands", &[], &PLANES, manager::told),
    ("systemd_understands_the_unit", manager::NEEDS_ANALYZE, USER, manager::unit),
    ("one_daemon_at_a_time", &[], &PLANES, start::one_at_a_time),
    ("status_says_what_is_wrong_and_what_to_do", &[], &PLANES, start::status),
    ("a_log_in_json_is_json_from_start_to_end", &[], USER, start::json_log),
    ("three_rights_are_enough_for_the_ebpf_plane", &["setpriv"], BPF, start::few_rights),
    ("an_unprivileged_daemon_says_what_it_lacks", &[], BPF, start::no_rights),
    ("auto_takes_the_other_plane_and_says_why", &["setpriv"], BPF, start::auto_falls_back),
];

fn main() -> ExitCode {
    if std::env::var_os(ipvs_e2e::AS_PROGRAM).is_some() {
        let args: Vec<OsString> = std::env::args_os().collect();
        return ipvs_cli::program::run(args);
    }
    let mut arguments = Arguments::from_args();
    // Two loads at a time would only be slower.
    arguments.test_threads = arguments.test_threads.or(Some(1));
    let is_root = match prepare() {
        Ok(is_root) => is_root,
        Err(error) => {
            say(&format!("SKIPPED: all end-to-end tests: {error:#}"));
            return ExitCode::SUCCESS;
        }
    };
    let trials = TESTS.iter().flat_map(|(name, needs, planes, test)| {
        planes.iter().map(move |plane| {
            let missing = needs.iter().find(|program| programs::find(program).is_none());
            let reason = match (is_root, plane, missing) {
                (false, Plane::Bpf | Plane::Xdp | Plane::Netfilter, _) => {
                    Some("the eBPF plane needs root".to_owned())
                }
                (_, _, Some(program)) => Some(format!("{program} is not installed")),
                _ => None,
            };
            let name = format!("{}::{name}", plane.name());
            if let (Some(reason), false) = (&reason, arguments.list) {
                say(&format!("SKIPPED: {name}: {reason}"));
            }
            let (test, plane) = (*test, *plane);
            let run = move || test(plane).map_err(|error| format!("{error:#}").into());
            Trial::test(name, run).with_ignored_flag(reason.is_some())
        })
    });
    let trials = trials.collect();
    libtest_mimic::run(&arguments, trials).exit_code()
}

/// Gets the rights that namespaces need, and a `/run` that vanishes with this
/// process; returns whether we are root.
fn prepare() -> Result<bool> {
    let is_root = ipvs_lab::can_make_namespaces();
    if is_root {
        ipvs_lab::enter_private_mounts()?;
    } else {
        ipvs_lab::enter_user_namespace()?;
    }
    mount("ipvs-e2e", "/run", "tmpfs", MountFlags::NOSUID | MountFlags::NODEV, None)?;
    Ok(is_root)
}

fn say(line: &str) {
    // A closed stderr is no reason to fail.
    let _unread = writeln!(io::stderr().lock(), "{line}");
}
