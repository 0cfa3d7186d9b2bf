//! `PersistentVolumeClaimResize`: a claim grows only where its storage class can make volumes grow. No class here can.
//!
//! Compare `plugin/pkg/admission/storage/persistentvolume/resize`.

use api::Object;
use api::quantity::{Quantity, of};
use k8s_openapi::api::core::v1::PersistentVolumeClaim;

use super::{Attributes, Effects, Operation, Plugin};
use crate::status::ApiError;

pub(super) struct PersistentVolumeClaimResize;

impl Plugin for PersistentVolumeClaimResize {
    fn validate(&self, a: &Attributes<'_>, object: Option<&dyn Object>, _: &mut Effects) -> Result<(), ApiError> {
        if !a.is(Operation::Update, "persistentvolumeclaims") {
            return Ok(());
        }
        let asks = |object: Option<&dyn Object>| object.and_then(|o| storage(o.as_any().downcast_ref()?));
        if asks(object) > asks(a.old) {
            let rule = "only dynamically provisioned pvc can be resized and the storageclass that provisions the pvc \
                 must support resize";
            return Err(a.forbidden(rule));
        }
        Ok(())
    }
}

fn storage(claim: &PersistentVolumeClaim) -> Option<Quantity> {
    claim.spec.as_ref()?.resources.as_ref()?.requests.as_ref()?.get("storage").map(of)
}
