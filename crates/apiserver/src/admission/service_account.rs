//! `ServiceAccount`: a pod runs as its namespace's `default` account unless it says otherwise.
//!
//! Compare `plugin/pkg/admission/serviceaccount`.

use api::Object;
use k8s_openapi::api::core::v1::{Pod, PodSpec};

use super::{Attributes, Effects, Operation, Plugin};
use crate::status::ApiError;

pub(super) struct ServiceAccount;

impl Plugin for ServiceAccount {
    fn admit(&self, a: &Attributes<'_>, object: &mut dyn Object, _: &mut Effects) -> Result<(), ApiError> {
        if a.is(Operation::Create, "pods")
            && let Some(pod) = object.as_any_mut().downcast_mut::<Pod>()
            // The picture of a static pod shows what runs already.
            && !api::pods::is_mirror(pod)
            && let Some(spec) = pod.spec.as_mut()
        {
            default_service_account(spec);
        }
        Ok(())
    }
}

fn default_service_account(spec: &mut PodSpec) {
    let name = spec.service_account_name.take().filter(|n| !n.is_empty());
    let name = name.or_else(|| spec.service_account.take().filter(|n| !n.is_empty()));
    let name = name.unwrap_or_else(|| "default".to_owned());
    spec.service_account = Some(name.clone());
    spec.service_account_name = Some(name);
}
