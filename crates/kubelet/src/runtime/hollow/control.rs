//! What tests do to the machine, and see of it.

use super::{Entry, Event, Hollow, KILLED};

impl Hollow {
    /// Ends the running container `container` of `namespace/pod` with `code`; whether there was one.
    pub fn exit(&self, namespace: &str, pod: &str, container: &str, code: i32) -> bool {
        let id = self.find(|entry| {
            entry.pod.namespace == namespace && entry.pod.name == pod && entry.container.name == container
        });
        id.is_some_and(|id| self.shared.finish(&id, code, false))
    }

    /// Ends the running container `container` of `namespace/pod` as the kernel does when memory runs out.
    pub fn exit_out_of_memory(&self, namespace: &str, pod: &str, container: &str) -> bool {
        let id = self.find(|entry| {
            entry.pod.namespace == namespace && entry.pod.name == pod && entry.container.name == container
        });
        id.is_some_and(|id| self.shared.finish(&id, KILLED, true))
    }

    /// Ends the sandbox of `namespace/pod` and all its containers, as a crash of the runtime would; whether there was
    /// one.
    pub fn kill_sandbox(&self, namespace: &str, pod: &str) -> bool {
        let sandbox = {
            let state = self.shared.state.lock();
            let mut live = state.sandboxes.iter().filter(|(_, (_, s))| s.running);
            live.find(|(_, (p, _))| p.namespace == namespace && p.name == pod).map(|(id, _)| id.clone())
        };
        sandbox.is_some_and(|id| self.shared.finish(&id, KILLED, false))
    }

    /// What the HTTP servers of `namespace/pod` answer from now on: a status, or `None` for no connection at all.
    pub fn answer(&self, namespace: &str, pod: &str, status: Option<u16>) {
        self.shared.state.lock().answers.insert((namespace.to_owned(), pod.to_owned()), status);
    }

    /// The requests that HTTP servers of pods got so far: their paths, and when they came.
    pub fn requests(&self) -> Vec<(String, jiff::Timestamp)> {
        self.shared.state.lock().requests.clone()
    }

    /// Has connections go out to this machine's own network from now on.
    pub fn use_network(&self) {
        self.shared.state.lock().network = true;
    }

    /// Has volumes made on disk from now on, though no container looks into them.
    pub fn use_files(&self) {
        self.shared.state.lock().files = true;
    }

    /// Whether the runtime hangs from now on when it is asked whether it is there.
    pub fn hang(&self, silent: bool) {
        self.shared.state.lock().silent = silent;
    }

    /// Whether containers ignore SIGTERM from now on.
    pub fn ignore_terminate(&self, stubborn: bool) {
        self.shared.state.lock().stubborn = stubborn;
    }

    /// How many containers run now, sandboxes not counted.
    pub fn running(&self) -> usize {
        self.shared.state.lock().containers.values().filter(|e| e.container.is_running()).count()
    }

    /// Waits until so many containers run.
    pub async fn until_running(&self, count: usize) {
        let mut running = self.shared.running.subscribe();
        running.wait_for(|present| *present == count).await.expect("the sender is ours");
    }

    /// How many sandboxes and containers were ever made.
    pub fn created(&self) -> u64 {
        self.shared.state.lock().creates
    }

    /// Lets the `step`th half of the calls that change something never return, and all later ones: an even half is before
    /// the change, an odd one after it. So a caller dies at a moment of its own.
    pub fn crash_at(&self, step: u64) {
        self.shared.crash.at(Some(step));
    }

    /// All calls return again, from now on.
    pub fn crash_never(&self) {
        self.shared.crash.at(None);
    }

    /// Waits until a call does not return.
    pub async fn crashed(&self) {
        self.shared.crash.happened().await;
    }

    /// Loses every container and sandbox, as a machine does that starts again with an empty Docker.
    pub fn reboot(&self) {
        let mut state = self.shared.state.lock();
        state.containers.clear();
        state.sandboxes.clear();
        state.used.clear();
        self.shared.count(&state);
        drop(state);
        let _ = self.shared.events.send(Event::Relist);
    }

    /// Waits until so many commands and connections of clients are under way.
    pub async fn until_sessions(&self, count: usize) {
        let mut sessions = self.shared.sessions.subscribe();
        sessions.wait_for(|present| *present == count).await.expect("the sender is ours");
    }

    fn find(&self, wanted: impl Fn(&Entry) -> bool) -> Option<String> {
        let state = self.shared.state.lock();
        let mut running = state.containers.iter().rev().filter(|(_, entry)| entry.container.is_running());
        running.find(|(_, entry)| wanted(entry)).map(|(id, _)| id.clone())
    }
}
