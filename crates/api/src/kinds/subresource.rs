//! Subresources: the paths below an object.

use super::{KindInfo, Verb};

/// A path below an object with a meaning of its own. A new one is a variant and a row in [`Subresource::info`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Subresource {
    /// `status`: the half that observers write.
    Status,
    /// `scale`: `autoscaling/v1` Scale.
    Scale,
    /// `binding`: gives a pod its node.
    Binding,
    /// `ephemeralcontainers`: containers put into a pod that runs, to look around.
    EphemeralContainers,
    /// `resize`: how much cpu and memory the containers of a pod ask for.
    Resize,
    /// `eviction`: asks a pod to leave its node.
    Eviction,
    /// `log`: what a container wrote.
    Log,
    /// `finalize`: a namespace's finalizers.
    Finalize,
    /// `approval`: conditions of a certificate signing request.
    Approval,
    /// `token`: makes a token for a service account.
    Token,
    /// `exec`: a command in a container.
    Exec,
    /// `attach`: what a container runs.
    Attach,
    /// `portforward`: ports of a pod.
    PortForward,
    /// `proxy`: HTTP to what is behind the object.
    Proxy,
}

/// The row of a subresource.
#[derive(Clone, Copy, Debug)]
pub struct SubresourceInfo {
    /// The path segment.
    pub name: &'static str,
    /// What can be done there, in alphabetical order; other methods are answered with 405.
    pub verbs: &'static [Verb],
    /// Group, version and kind of what is spoken there; `None` where it is the kind of the object itself.
    pub speaks: Option<(&'static str, &'static str, &'static str)>,
}

/// WebSockets begin with GET, SPDY with POST.
const UPGRADES: &[Verb] = &[Verb::Create, Verb::Get];
const ANY_METHOD: &[Verb] = &[Verb::Create, Verb::Delete, Verb::Get, Verb::Patch, Verb::Update];
const READ_WRITE: &[Verb] = &[Verb::Get, Verb::Patch, Verb::Update];

impl Subresource {
    /// Name, verbs and kind.
    pub const fn info(self) -> SubresourceInfo {
        match self {
            Subresource::Status => row("status", READ_WRITE, None),
            Subresource::Scale => row("scale", READ_WRITE, Some(("autoscaling", "v1", "Scale"))),
            Subresource::Binding => row("binding", Verb::CREATE_ONLY, Some(("", "v1", "Binding"))),
            Subresource::EphemeralContainers => row("ephemeralcontainers", READ_WRITE, None),
            Subresource::Resize => row("resize", READ_WRITE, None),
            Subresource::Eviction => row("eviction", Verb::CREATE_ONLY, Some(("policy", "v1", "Eviction"))),
            Subresource::Log => row("log", &[Verb::Get], None),
            Subresource::Finalize => row("finalize", &[Verb::Update], None),
            Subresource::Approval => row("approval", READ_WRITE, None),
            Subresource::Token => {
                row("token", Verb::CREATE_ONLY, Some(("authentication.k8s.io", "v1", "TokenRequest")))
            }
            Subresource::Exec => row("exec", UPGRADES, Some(("", "v1", "PodExecOptions"))),
            Subresource::Attach => row("attach", UPGRADES, Some(("", "v1", "PodAttachOptions"))),
            Subresource::PortForward => row("portforward", UPGRADES, Some(("", "v1", "PodPortForwardOptions"))),
            Subresource::Proxy => row("proxy", ANY_METHOD, None),
        }
    }

    /// The path segment.
    pub const fn as_str(self) -> &'static str {
        self.info().name
    }

    /// Whether what is below passes through the API server as it is: verbs only say who may do it.
    pub const fn connects(self) -> bool {
        use Subresource::{Attach, Exec, PortForward, Proxy};
        matches!(self, Exec | Attach | PortForward | Proxy)
    }

    /// Group, version and kind of what is spoken at this path below objects of `kind`.
    pub fn speaks(self, kind: &KindInfo) -> (&'static str, &'static str, &'static str) {
        if self == Subresource::Proxy {
            let options = match kind.kind {
                "Node" => "NodeProxyOptions",
                "Service" => "ServiceProxyOptions",
                _ => "PodProxyOptions",
            };
            return ("", "v1", options);
        }
        self.info().speaks.unwrap_or((kind.group, kind.version, kind.kind))
    }
}

const fn row(
    name: &'static str,
    verbs: &'static [Verb],
    speaks: Option<(&'static str, &'static str, &'static str)>,
) -> SubresourceInfo {
    SubresourceInfo { name, verbs, speaks }
}
