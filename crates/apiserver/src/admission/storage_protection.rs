//! `StorageObjectInUseProtection`: a volume that is bound and a claim that a pod uses stay until they are not, however soon
//! somebody deletes them. Controllers take the finalizers away.
//!
//! Compare `plugin/pkg/admission/storage/storageobjectinuseprotection`.

use api::Object;
use api::well_known::{FINALIZER_CLAIM_PROTECTION, FINALIZER_VOLUME_PROTECTION};

use super::{Attributes, Effects, Operation, Plugin};
use crate::status::ApiError;

pub(super) struct StorageObjectInUseProtection;

impl Plugin for StorageObjectInUseProtection {
    fn admit(&self, a: &Attributes<'_>, object: &mut dyn Object, _: &mut Effects) -> Result<(), ApiError> {
        let finalizer = if a.is(Operation::Create, "persistentvolumes") {
            FINALIZER_VOLUME_PROTECTION
        } else if a.is(Operation::Create, "persistentvolumeclaims") {
            FINALIZER_CLAIM_PROTECTION
        } else {
            return Ok(());
        };
        let finalizers = object.metadata_mut().finalizers.get_or_insert_default();
        if !finalizers.iter().any(|f| f == finalizer) {
            finalizers.push(finalizer.to_owned());
        }
        Ok(())
    }
}
