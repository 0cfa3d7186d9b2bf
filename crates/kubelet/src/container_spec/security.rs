//! What a container's processes may do: the container's security context, where it says nothing the pod's. Pure.

use k8s_openapi::api::core::v1::{
    AppArmorProfile, Container, Pod, PodSecurityContext, SELinuxOptions, SeccompProfile, SecurityContext,
};

use crate::env::EnvError;
use crate::runtime::{Image, Seccomp};

/// The pod's and the container's security contexts.
pub(super) struct Security<'a> {
    metadata: &'a k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta,
    name: &'a str,
    pod: Option<&'a PodSecurityContext>,
    container: Option<&'a SecurityContext>,
}

impl<'a> Security<'a> {
    pub(super) fn of(pod: &'a Pod, container: &'a Container) -> Security<'a> {
        let of_pod = pod.spec.as_ref().and_then(|s| s.security_context.as_ref());
        let container_context = container.security_context.as_ref();
        Security { metadata: &pod.metadata, name: &container.name, pod: of_pod, container: container_context }
    }

    fn uid(&self) -> Option<i64> {
        self.container.and_then(|s| s.run_as_user).or(self.pod.and_then(|s| s.run_as_user))
    }

    /// `uid[:gid]`. Docker takes no group without a user, so that is the image's then.
    pub(super) fn user(&self, image: &Image) -> String {
        let group = self.container.and_then(|s| s.run_as_group).or(self.pod.and_then(|s| s.run_as_group));
        let of_image = image.user.split(':').next().filter(|user| !user.is_empty()).unwrap_or("0");
        match (self.uid(), group) {
            (Some(user), Some(group)) => format!("{user}:{group}"),
            (Some(user), None) => user.to_string(),
            (None, Some(group)) => format!("{of_image}:{group}"),
            (None, None) => String::new(),
        }
    }

    pub(super) fn groups(&self) -> Vec<String> {
        let Some(pod) = self.pod else { return Vec::new() };
        pod.supplemental_groups.iter().flatten().chain(&pod.fs_group).map(i64::to_string).collect()
    }

    pub(super) fn privileged(&self) -> bool {
        self.is_set(|s| s.privileged)
    }

    pub(super) fn read_only_root(&self) -> bool {
        self.is_set(|s| s.read_only_root_filesystem)
    }

    pub(super) fn no_new_privileges(&self) -> bool {
        self.container.is_some_and(|s| s.allow_privilege_escalation == Some(false))
    }

    pub(super) fn unmasked_proc(&self) -> bool {
        self.container.is_some_and(|s| s.proc_mount.as_deref() == Some("Unmasked"))
    }

    fn is_set(&self, flag: impl Fn(&SecurityContext) -> Option<bool>) -> bool {
        self.container.and_then(flag) == Some(true)
    }

    /// Capabilities to add and to drop.
    pub(super) fn capabilities(&self) -> (Vec<String>, Vec<String>) {
        let capabilities = self.container.and_then(|s| s.capabilities.clone()).unwrap_or_default();
        (capabilities.add.unwrap_or_default(), capabilities.drop.unwrap_or_default())
    }

    fn seccomp_profile(&self) -> Option<&'a SeccompProfile> {
        let own = self.container.and_then(|s| s.seccomp_profile.as_ref());
        own.or(self.pod.and_then(|s| s.seccomp_profile.as_ref()))
    }

    /// The file below the kubelet's seccomp directory that holds the profile asked for.
    pub(super) fn local_seccomp_profile(&self) -> Option<&'a str> {
        let profile = self.seccomp_profile().filter(|_| !self.privileged())?;
        profile.localhost_profile.as_deref().filter(|_| profile.type_ == "Localhost")
    }

    /// The system call filter. Who asks for none has none (`fieldSeccompProfile`); `local` is what the file holds.
    pub(super) fn seccomp(&self, local: Option<String>) -> Seccomp {
        match (self.seccomp_profile().map(|p| p.type_.as_str()), local) {
            _ if self.privileged() => Seccomp::Unconfined,
            (Some("RuntimeDefault"), _) => Seccomp::RuntimeDefault,
            (Some("Localhost"), Some(profile)) => Seccomp::Profile(profile),
            _ => Seccomp::Unconfined,
        }
    }

    /// The AppArmor profile: the field's, else that of the annotation of old; `None`: the runtime's default.
    pub(super) fn app_armor(&self) -> Option<String> {
        let own = self.container.and_then(|s| s.app_armor_profile.as_ref());
        if let Some(profile) = own.or(self.pod.and_then(|s| s.app_armor_profile.as_ref())) {
            let AppArmorProfile { type_, localhost_profile } = profile;
            return match type_.as_str() {
                "Unconfined" => Some("unconfined".to_owned()),
                "Localhost" => localhost_profile.clone(),
                _ => None,
            };
        }
        let key = format!("container.apparmor.security.beta.kubernetes.io/{}", self.name);
        let annotation = self.metadata.annotations.as_ref()?.get(&key)?;
        match annotation.strip_prefix("localhost/") {
            Some(profile) => Some(profile.to_owned()),
            None => (annotation == "unconfined").then(|| "unconfined".to_owned()),
        }
    }

    /// SELinux labels, as Docker writes them: `user:…`.
    pub(super) fn se_linux(&self) -> Vec<String> {
        let own = self.container.and_then(|s| s.se_linux_options.as_ref());
        let Some(options) = own.or(self.pod.and_then(|s| s.se_linux_options.as_ref())) else { return Vec::new() };
        let SELinuxOptions { level, role, type_, user } = options;
        let parts = [("user", user), ("role", role), ("type", type_), ("level", level)];
        let part = |(name, value): (&str, &Option<String>)| {
            value.as_ref().filter(|v| !v.is_empty()).map(|v| format!("{name}:{v}"))
        };
        parts.into_iter().filter_map(part).collect()
    }

    /// `runAsNonRoot`: nobody may run as root, least of all by accident (`verifyRunAsNonRoot`). `full_name` is the pod's.
    pub(super) fn check_non_root(&self, image: &Image, full_name: &str) -> Result<(), EnvError> {
        let asked = self.container.and_then(|s| s.run_as_non_root).or(self.pod.and_then(|s| s.run_as_non_root));
        if asked != Some(true) {
            return Ok(());
        }
        let whose = format!("(pod: {full_name:?}, container: {})", self.name);
        let refuse = |why: &str| Err(EnvError(format!("{why} {whose}")));
        let image_user = image.user.split(':').next().unwrap_or_default();
        match (self.uid(), image_user) {
            (Some(0), _) => refuse("container's runAsUser breaks non-root policy"),
            (Some(_), _) => Ok(()),
            (None, "" | "0") => refuse("container has runAsNonRoot and image will run as root"),
            (None, user) if user.parse::<u32>().is_err() => refuse(&format!(
                "container has runAsNonRoot and image has non-numeric user ({user}), cannot verify user is non-root"
            )),
            _ => Ok(()),
        }
    }
}
