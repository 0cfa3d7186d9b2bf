//! `DefaultTolerationSeconds`: a pod is not evicted at once when its node stumbles.
//!
//! Compare `plugin/pkg/admission/defaulttolerationseconds`.

use api::Object;
use api::well_known::{TAINT_NOT_READY, TAINT_UNREACHABLE};
use k8s_openapi::api::core::v1::{Pod, PodSpec, Toleration};

use super::{Attributes, Effects, Operation, Plugin};
use crate::status::ApiError;

/// How long pods stay on a node that is not ready or not reachable.
const DEFAULT_TOLERATION_SECONDS: i64 = 300;

pub(super) struct DefaultTolerationSeconds;

impl Plugin for DefaultTolerationSeconds {
    fn admit(&self, a: &Attributes<'_>, object: &mut dyn Object, _: &mut Effects) -> Result<(), ApiError> {
        let concerns = a.is(Operation::Create, "pods") || a.is(Operation::Update, "pods");
        if concerns && let Some(spec) = object.as_any_mut().downcast_mut::<Pod>().and_then(|pod| pod.spec.as_mut()) {
            default_tolerations(spec);
        }
        Ok(())
    }
}

fn default_tolerations(spec: &mut PodSpec) {
    for key in [TAINT_NOT_READY, TAINT_UNREACHABLE] {
        let tolerations = spec.tolerations.get_or_insert_default();
        let covered = tolerations.iter().any(|t| {
            t.key.as_deref().is_none_or(|k| k.is_empty() || k == key)
                && t.effect.as_deref().is_none_or(|e| e.is_empty() || e == "NoExecute")
        });
        if !covered {
            tolerations.push(Toleration {
                key: Some(key.to_owned()),
                operator: Some("Exists".to_owned()),
                effect: Some("NoExecute".to_owned()),
                toleration_seconds: Some(DEFAULT_TOLERATION_SECONDS),
                ..Toleration::default()
            });
        }
    }
}
