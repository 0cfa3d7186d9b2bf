//! etcd's messages and services as `proto/` has them, made into code when this crate is built.
#![allow(missing_docs, unreachable_pub, dead_code, clippy::all, reason = "nobody wrote it")]

pub(crate) mod mvccpb {
    tonic::include_proto!("mvccpb");
}

pub(crate) mod etcdserverpb {
    tonic::include_proto!("etcdserverpb");
}
