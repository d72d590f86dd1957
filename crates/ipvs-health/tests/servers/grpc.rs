//! gRPC, by grpcio.

use std::fs;
use std::process::Command;

use ipvs_health::check::Failure;

use crate::faults::{Fault, in_front_of, refused};
use crate::programs::{Server, free_port, is_there, start};
use crate::{made, within};

const GRPC: &str = "type = \"grpc\"";
/// Debian's, whichever other there is.
const PYTHON: &str = "/usr/bin/python3";
const GRPCIO: &str = "/usr/lib/python3/dist-packages/grpc/__init__.py";
/// The health service by hand: its messages are short, and the package for them is not Debian's.
const SERVER: &str = "import grpc, sys
from concurrent import futures
STATES = {b'': 1, b'\\n\\x04shop': 1, b'\\n\\x04till': 2}
def check(request, context):
    if request not in STATES:
        context.abort(grpc.StatusCode.NOT_FOUND, 'unknown service')
    return bytes([8, STATES[request]])
server = grpc.server(futures.ThreadPoolExecutor(2))
method = grpc.unary_unary_rpc_method_handler(check)
handler = grpc.method_handlers_generic_handler(sys.argv[2], {'Check': method})
server.add_generic_rpc_handlers((handler,))
server.add_insecure_port('127.0.0.1:' + sys.argv[1])
server.start()
server.wait_for_termination()
";

/// A server that has this for a health service.
fn server(service: &str) -> Option<Server> {
    is_there(GRPCIO)?;
    let (port, folder) = (free_port(), tempfile::tempdir().unwrap());
    let script = folder.path().join("server.py");
    fs::write(&script, SERVER).unwrap();
    let mut command = Command::new(PYTHON);
    command.arg(script).arg(port.to_string()).arg(service);
    Some(start(command, port, folder))
}

#[test]
fn the_health_service_says_how_a_service_stands() {
    let Some(server) = server("grpc.health.v1.Health") else { return };
    within(async {
        let of = |service: &str| format!("{GRPC}\nservice = \"{service}\"");
        assert_eq!(made(GRPC, server.at).await, Ok(()));
        assert_eq!(made(&of("shop"), server.at).await, Ok(()));
        for (service, why) in [("till", "NOT_SERVING"), ("attic", "no such service")] {
            let failure = Failure::Wrong(why.into());
            assert_eq!(made(&of(service), server.at).await, Err(failure), "{service}");
        }
    });
}

#[test]
fn grpc_fails_in_all_ways() {
    let Some(server) = server("grpc.health.v1.Health") else { return };
    let Some(other) = self::server("other.Service") else { return };
    within(async {
        assert_eq!(made(GRPC, refused().await).await.unwrap_err().label(), "refused");
        let hasty = format!("{GRPC}\ntimeout = \"500ms\"");
        for fault in [Fault::Silent, Fault::Slow] {
            let at = in_front_of(server.at, fault).await;
            assert_eq!(made(&hasty, at).await, Err(Failure::Timeout(500)), "{fault:?}");
        }
        // Before anything, and within the settings and the answer.
        for octets in [0, 20, 100] {
            let at = in_front_of(server.at, Fault::Cut(octets)).await;
            let failure = made(GRPC, at).await.unwrap_err();
            assert!(["broken", "wrong"].contains(&failure.label()), "{octets}: {failure}");
        }
        let failure = Failure::Wrong("no health service".into());
        assert_eq!(made(GRPC, other.at).await, Err(failure));
    });
}
