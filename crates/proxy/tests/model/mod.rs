//! A model of one nft table: runs our scripts and refuses what the kernel would refuse.

use std::collections::{BTreeMap, BTreeSet};

/// Chains with their rules, sets and maps with their elements.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Table {
    chains: BTreeMap<String, Vec<String>>,
    sets: BTreeMap<String, (String, BTreeMap<String, String>)>,
}

impl Table {
    /// Runs a script as one transaction.
    pub(crate) fn run(&mut self, script: &str) {
        script.lines().for_each(|line| self.line(line));
        self.check();
    }

    fn line(&mut self, line: &str) {
        let (verb, rest) = line.split_once(' ').unwrap();
        let (object, rest) = rest.split_once(' ').unwrap();
        let rest = rest.strip_prefix("ip coracle").unwrap().trim_start();
        let (name, body) = rest.split_once(' ').unwrap_or((rest, ""));
        match (verb, object) {
            ("add", "table") => {}
            ("delete", "table") => *self = Table::default(),
            ("add", "chain") => assert!(self.chains.insert(name.into(), vec![]).is_none(), "{line}"),
            ("flush", "chain") => self.chains.get_mut(name).expect(line).clear(),
            ("delete", "chain") => assert_eq!(self.chains.remove(name).expect(line), Vec::<String>::new(), "{line}"),
            ("add", "rule") => self.chains.get_mut(name).expect(line).push(body.into()),
            ("add", "set" | "map") => {
                assert!(self.sets.insert(name.into(), (body.into(), BTreeMap::new())).is_none(), "{line}");
            }
            ("flush", "set") => self.sets.get_mut(name).expect(line).1.clear(),
            ("delete", "set") => drop(self.sets.remove(name).expect(line)),
            ("add" | "delete", "element") => self.elements(verb, name, body),
            _ => panic!("{line}"),
        }
    }

    fn elements(&mut self, verb: &str, set: &str, body: &str) {
        let elements = &mut self.sets.get_mut(set).unwrap().1;
        for element in body.trim_matches(['{', '}', ' ']).split(", ") {
            let (key, value) = element.split_once(" : ").unwrap_or((element, ""));
            match verb {
                "add" => assert!(elements.insert(key.into(), value.into()).is_none(), "twice: {element}"),
                _ => assert!(elements.remove(key).is_some(), "not there: {element}"),
            }
        }
    }

    /// Everything referred to exists.
    fn check(&self) {
        let verdicts = self.sets.values().flat_map(|(_, elements)| elements.values());
        let words = self.chains.values().flatten().chain(verdicts).flat_map(|text| text.split([' ', ',']));
        let words: Vec<&str> = words.collect();
        let chains: BTreeSet<&str> =
            words.windows(2).filter(|w| matches!(w[0], "goto" | "jump")).map(|w| w[1]).collect();
        for chain in chains {
            assert!(self.chains.contains_key(chain), "no chain {chain}");
        }
        for set in words.iter().filter_map(|w| w.strip_prefix('@')) {
            assert!(self.sets.contains_key(set), "no set {set}");
        }
    }
}
