//! Makes code of `proto/`: messages and servers. Clients of etcd are etcd-client's.

use std::io;

const PROTO: &str = "../../proto";

fn main() -> io::Result<()> {
    let files =
        ["kv", "watch", "lease", "maintenance", "cluster"].map(|name| format!("{PROTO}/etcdserverpb/{name}.proto"));
    tonic_prost_build::configure()
        .build_client(false)
        // Values go out as they lie in memory. What comes in is copied out of its request: a value that is kept must not
        // keep all of that.
        .bytes(".mvccpb.KeyValue.value")
        .compile_protos(&files, &[PROTO.to_owned()])
}
