//! Leader election by Lease (coordination.k8s.io/v1), as `k8s.io/client-go/tools/leaderelection` does it.
