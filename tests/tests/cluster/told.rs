//! What controllers say beside what they do.

use std::sync::Arc;

use harness::Cluster;
use k8s_openapi::api::core::v1::{Endpoints, Event, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::Api;

use crate::SERVICE;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_claim_that_waits_is_told_why() {
    let cluster = Cluster::new().start().await.unwrap();
    let claim = "{apiVersion: v1, kind: PersistentVolumeClaim, metadata: {name: data}, spec: {accessModes: [ReadWriteOnce], \
                 resources: {requests: {storage: 2Gi}}}}";
    cluster.create(claim).await.unwrap();
    let is_told = |event: &Arc<Event>| event.involved_object.name.as_deref() == Some("data");
    let events = cluster.until::<Event>("the claim is told of", "", |all| all.iter().any(is_told)).await.unwrap();
    let event = events.iter().find(|event| is_told(event)).unwrap();
    let of = event.source.as_ref().and_then(|source| source.component.as_deref());
    assert_eq!((event.type_.as_deref(), of), (Some("Normal"), Some("persistentvolume-controller")));
    assert_eq!(event.reason.as_deref(), Some("FailedBinding"));
    let why = "no persistent volumes available for this claim and no storage class is set";
    assert_eq!(event.message.as_deref(), Some(why));
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_shows_a_service_says_by_which_change_it_does() {
    let cluster = Cluster::new().start().await.unwrap();
    cluster.create(SERVICE).await.unwrap();
    let service = Api::<Service>::default_namespaced(cluster.client()).get("web").await.unwrap();
    let made = service.metadata.creation_timestamp.unwrap().0.to_string();
    let is_told = |metadata: &ObjectMeta| {
        let annotations = metadata.annotations.as_ref();
        annotations.and_then(|all| all.get("endpoints.kubernetes.io/last-change-trigger-time")) == Some(&made)
    };
    let slices = |all: &[Arc<EndpointSlice>]| all.iter().any(|slice| is_told(&slice.metadata));
    cluster.until("a slice that says when", "kubernetes.io/service-name=web", slices).await.unwrap();
    let endpoints = |all: &[Arc<Endpoints>]| all.iter().any(|endpoints| is_told(&endpoints.metadata));
    cluster.until("endpoints that say when", "", endpoints).await.unwrap();
    cluster.stop().await;
}
