//! Amounts of what a node gives and pods take.

use std::collections::BTreeMap;

use api::quantity;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

/// A quantity of each resource. Wide integers, so that any number of stored quantities (each below 2⁶³) adds up, and
/// taking away what was added gives back exactly what was there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Resources {
    /// Thousandths of a core.
    pub milli_cpu: i128,
    /// Bytes.
    pub memory: i128,
    /// Bytes of local storage.
    pub ephemeral_storage: i128,
    /// Whatever else: `hugepages-2Mi`, `example.com/widget`.
    pub scalars: BTreeMap<String, i128>,
}

/// What a node gives to pods.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Allocatable {
    /// Amounts.
    pub resources: Resources,
    /// How many pods.
    pub pods: i128,
}

impl Resources {
    /// Adds `other`.
    pub fn add(&mut self, other: &Resources) {
        self.apply(other, 1);
    }

    /// Takes `other` away.
    pub fn subtract(&mut self, other: &Resources) {
        self.apply(other, -1);
    }

    fn apply(&mut self, other: &Resources, sign: i128) {
        self.milli_cpu += sign * other.milli_cpu;
        self.memory += sign * other.memory;
        self.ephemeral_storage += sign * other.ephemeral_storage;
        for (name, amount) in &other.scalars {
            let sum = self.scalars.get(name).copied().unwrap_or(0) + sign * amount;
            if sum == 0 {
                self.scalars.remove(name)
            } else {
                self.scalars.insert(name.clone(), sum)
            };
        }
    }

    /// Whether nothing is asked for.
    pub fn is_empty(&self) -> bool {
        *self == Resources::default()
    }
}

/// Reads `status.allocatable`.
pub fn allocatable(list: &BTreeMap<String, Quantity>) -> Allocatable {
    let mut result = Allocatable::default();
    for (name, amount) in list {
        let amount = quantity::of(amount);
        match name.as_str() {
            "cpu" => result.resources.milli_cpu = amount.milli().into(),
            "memory" => result.resources.memory = amount.units().into(),
            "ephemeral-storage" => result.resources.ephemeral_storage = amount.units().into(),
            "pods" => result.pods = amount.units().into(),
            _ => {
                result.resources.scalars.insert(name.clone(), amount.units().into());
            }
        }
    }
    result
}

/// Whether `name` is a resource that [`api::pods::held`] does not sum up.
pub fn is_scalar(name: &str) -> bool {
    !matches!(name, "cpu" | "memory" | "ephemeral-storage")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn taking_away_what_was_added_leaves_nothing() {
        let some = Resources { milli_cpu: 1, memory: 2, ephemeral_storage: 3, scalars: [("gpu".into(), 4)].into() };
        let mut sum = Resources::default();
        sum.add(&some);
        sum.add(&some);
        assert_eq!(sum.scalars["gpu"], 8);
        sum.subtract(&some);
        sum.subtract(&some);
        assert!(sum.is_empty());
    }

    #[test]
    fn allocatable_is_read_with_other_resources() {
        let list = [("cpu", "1500m"), ("memory", "2Gi"), ("pods", "110"), ("example.com/gpu", "2")];
        let list = list.into_iter().map(|(k, v)| (k.to_owned(), Quantity(v.to_owned()))).collect();
        let read = allocatable(&list);
        assert_eq!((read.resources.milli_cpu, read.resources.memory, read.pods), (1500, 2 << 30, 110));
        assert_eq!(read.resources.scalars["example.com/gpu"], 2);
    }
}
