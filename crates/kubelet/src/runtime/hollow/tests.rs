use super::*;

fn words(line: &str) -> Vec<String> {
    line.split(' ').map(str::to_owned).collect()
}

#[test]
fn commands_behave_as_their_words_say() {
    for (command, expected) in [
        (words("httpd -f"), Behaviour::Run),
        (words("true"), Behaviour::Exit(0)),
        (words("false"), Behaviour::Exit(1)),
        (vec!["sh".into(), "-c".into(), "exit 3".into()], Behaviour::Exit(3)),
        (vec!["/bin/sh".into(), "-c".into(), "sleep 5".into()], Behaviour::Sleep(Duration::from_secs(5))),
        (words("echo hello"), Behaviour::Exit(0)),
    ] {
        assert_eq!(behaviour(&command).0, expected, "{command:?}");
    }
}

#[tokio::test]
async fn addresses_come_from_the_pod_cidr_and_return_to_it() {
    let hollow = Hollow::default();
    hollow.ensure_network("10.1.2.0/30".parse().unwrap()).await.unwrap();
    let first = hollow.run_sandbox(&SandboxSpec::default()).await.unwrap();
    assert_eq!(first.ip, Some("10.1.2.2".parse().unwrap()), "after network and gateway");
    assert!(hollow.run_sandbox(&SandboxSpec::default()).await.is_err(), "the network is full");
    hollow.remove(&first.id).await.unwrap();
    assert_eq!(hollow.run_sandbox(&SandboxSpec::default()).await.unwrap().ip, first.ip);
}
