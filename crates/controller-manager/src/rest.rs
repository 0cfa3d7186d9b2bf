//! The writes of all controllers, by path and bytes. Answers are not decoded beyond the metadata somebody needs:
//! creating 500 pods should not parse 500 pods.

use api::KindInfo;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Error;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams};
use kube::core::Request;
use serde::Deserialize;
use serde::de::{DeserializeOwned, IgnoredAny};
use serde_json::value::RawValue;
use serde_json::{Value, json};

use crate::pod::PodInfo;

/// A client for writes. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Rest(kube::Client);

/// What a write's answer says about the object as it is now.
#[derive(Debug, Deserialize)]
pub(crate) struct Written {
    /// See [`WrittenMeta`].
    pub(crate) metadata: WrittenMeta,
}

/// The part of metadata a controller needs of its own writes.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct WrittenMeta {
    /// Name, also where the server made it up.
    pub(crate) name: String,
    /// UID.
    pub(crate) uid: String,
    /// Resource version of the write.
    pub(crate) resource_version: String,
}

/// One page of a list of metadata.
#[derive(Debug, Deserialize)]
pub(crate) struct MetadataList {
    /// The list's own metadata: whether there is more.
    #[serde(default)]
    pub(crate) metadata: kube::core::ListMeta,
    /// The objects of the page.
    pub(crate) items: Vec<MetadataItem>,
}

/// A list whose items are for others to decode.
#[derive(Deserialize)]
struct RawList {
    items: Vec<Box<RawValue>>,
}

/// An object of which only metadata was read.
#[derive(Debug, Deserialize)]
pub(crate) struct MetadataItem {
    /// Its metadata.
    pub(crate) metadata: ObjectMeta,
}

/// The collection of kind `K`, in `namespace` where the kind has one.
pub(crate) fn path<K: k8s_openapi::Resource>(namespace: Option<&str>) -> String {
    collection(K::GROUP, K::VERSION, K::URL_PATH_SEGMENT, namespace)
}

/// The collection of a kind of the table.
pub(crate) fn path_of(kind: &KindInfo, namespace: Option<&str>) -> String {
    collection(kind.group, kind.version, kind.plural, namespace)
}

fn collection(group: &str, version: &str, plural: &str, namespace: Option<&str>) -> String {
    let root = if group.is_empty() { format!("/api/{version}") } else { format!("/apis/{group}/{version}") };
    match namespace {
        Some(namespace) => format!("{root}/namespaces/{namespace}/{plural}"),
        None => format!("{root}/{plural}"),
    }
}

impl Rest {
    /// Over `client`.
    pub(crate) fn new(client: kube::Client) -> Rest {
        Rest(client)
    }

    /// The metadata of an object as the API has it now; `None` if it has none of that name.
    pub(crate) async fn get_metadata(&self, path: &str, name: &str) -> Result<Option<ObjectMeta>, Error> {
        let request = Request::new(path).get_metadata(name, &Default::default()).map_err(Error::BuildRequest)?;
        match self.0.request::<MetadataItem>(request).await {
            Ok(item) => Ok(Some(item.metadata)),
            Err(error) if is_not_found(&error) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The metadata of the first `limit` objects of a collection, as the API has them now.
    pub(crate) async fn list_metadata(&self, path: &str, limit: u32) -> Result<MetadataList, Error> {
        let params = ListParams::default().limit(limit);
        self.0.request(Request::new(path).list_metadata(&params).map_err(Error::BuildRequest)?).await
    }

    /// The objects of a collection as the API has them now, undecoded.
    pub(crate) async fn list(&self, path: &str) -> Result<Vec<Box<RawValue>>, Error> {
        let request = Request::new(path).list(&ListParams::default()).map_err(Error::BuildRequest)?;
        self.0.request::<RawList>(request).await.map(|list| list.items)
    }

    /// Creates the object that `body` encodes.
    pub(crate) async fn create(&self, path: &str, body: Vec<u8>) -> Result<Written, Error> {
        let request = Request::new(path).create(&PostParams::default(), body).map_err(Error::BuildRequest)?;
        self.0.request(request).await
    }

    /// Posts `body` and decodes the answer as what the caller needs of it.
    pub(crate) async fn post<T: DeserializeOwned>(&self, path: &str, body: Vec<u8>) -> Result<T, Error> {
        let request = Request::new(path).create(&PostParams::default(), body).map_err(Error::BuildRequest)?;
        self.0.request(request).await
    }

    /// Replaces the object (its `subresource` where given) by what `body` encodes.
    pub(crate) async fn replace(
        &self,
        path: &str,
        name: &str,
        subresource: Option<&str>,
        body: Vec<u8>,
    ) -> Result<Written, Error> {
        let (request, params) = (Request::new(path), PostParams::default());
        let request = match subresource {
            Some(subresource) => request.replace_subresource(subresource, name, &params, body),
            None => request.replace(name, &params, body),
        };
        self.0.request(request.map_err(Error::BuildRequest)?).await
    }

    /// Applies a JSON merge patch to the object, or to its `subresource`.
    pub(crate) async fn merge_patch(
        &self,
        path: &str,
        name: &str,
        subresource: Option<&str>,
        patch: &Value,
    ) -> Result<Written, Error> {
        let (request, params, patch) = (Request::new(path), PatchParams::default(), &Patch::Merge(patch));
        let request = match subresource {
            Some(subresource) => request.patch_subresource(subresource, name, &params, patch),
            None => request.patch(name, &params, patch),
        };
        self.0.request(request.map_err(Error::BuildRequest)?).await
    }

    /// Merges `status` into the status of exactly the pod that was looked at. Lists merge by their keys (a condition by its
    /// type), so what is not kept of a pod stays as it is.
    pub(crate) async fn patch_pod_status(&self, pod: &PodInfo, status: &Value) -> Result<(), Error> {
        let patch = json!({"metadata": {"uid": pod.uid, "resourceVersion": pod.version}, "status": status});
        let request = Request::new(path::<Pod>(Some(&pod.namespace)));
        let patch = Patch::Strategic(patch);
        let request = request.patch_subresource("status", &pod.name, &PatchParams::default(), &patch);
        self.0.request::<IgnoredAny>(request.map_err(Error::BuildRequest)?).await.map(|_| ())
    }

    /// Deletes an object; one that is gone already is no error.
    pub(crate) async fn delete(&self, path: &str, name: &str, params: &DeleteParams) -> Result<(), Error> {
        let request = Request::new(path).delete(name, params).map_err(Error::BuildRequest)?;
        ignore_not_found(self.0.request::<IgnoredAny>(request).await.map(|_| ()))
    }

    /// Deletes every object of a collection.
    pub(crate) async fn delete_collection(&self, path: &str, params: &DeleteParams) -> Result<(), Error> {
        let request = Request::new(path).delete_collection(params, &ListParams::default());
        self.0.request::<IgnoredAny>(request.map_err(Error::BuildRequest)?).await.map(|_| ())
    }
}

/// The same, with "not found" as success.
pub(crate) fn ignore_not_found(result: Result<(), Error>) -> Result<(), Error> {
    match result {
        Err(error) if is_not_found(&error) => Ok(()),
        other => other,
    }
}

/// Whether the object does not exist.
pub(crate) fn is_not_found(error: &Error) -> bool {
    matches!(error, Error::Api(status) if status.is_not_found())
}

/// Whether another write came first, or a precondition failed.
pub(crate) fn is_conflict(error: &Error) -> bool {
    matches!(error, Error::Api(status) if status.is_conflict())
}

/// Whether an object of that name exists already.
pub(crate) fn is_already_exists(error: &Error) -> bool {
    matches!(error, Error::Api(status) if status.is_already_exists())
}

/// Whether the namespace is being deleted and takes nothing new.
pub(crate) fn is_namespace_terminating(error: &Error) -> bool {
    matches!(error, Error::Api(status)
        if status.details.as_ref().is_some_and(|d| d.causes.iter().any(|c| c.reason == "NamespaceTerminating")))
}

/// Deletion of exactly the object with this UID.
pub(crate) fn only_uid(uid: &str) -> DeleteParams {
    let preconditions = kube::api::Preconditions { uid: Some(uid.to_owned()), resource_version: None };
    DeleteParams { preconditions: Some(preconditions), ..DeleteParams::default() }
}

/// The JSON of an object of any kind.
pub(crate) fn encode<K: serde::Serialize>(object: &K) -> Vec<u8> {
    serde_json::to_vec(object).expect("objects have string keys only, so they always encode")
}
