//! The messages and services of kubelet's protocols, generated from `proto/`.

/// How kubelet learns of a plugin.
#[expect(
    clippy::pedantic,
    clippy::allow_attributes,
    clippy::allow_attributes_without_reason,
    reason = "generated"
)]
pub mod registration {
    tonic::include_proto!("pluginregistration");
}

/// The DRA plugin service of kubelets from 1.34 on, and the messages of both versions.
#[expect(
    clippy::pedantic,
    clippy::allow_attributes,
    clippy::allow_attributes_without_reason,
    reason = "generated"
)]
pub mod v1 {
    tonic::include_proto!("k8s.io.kubelet.pkg.apis.dra.v1");
}

/// The service that tells how devices are. Its packages are called just `v1` and `v1alpha1`, and the
/// second refers to the first.
#[expect(
    clippy::pedantic,
    clippy::allow_attributes,
    clippy::allow_attributes_without_reason,
    reason = "generated"
)]
pub mod health {
    /// For kubelets from 1.37 on, and the messages of both versions.
    pub mod v1 {
        tonic::include_proto!("v1");
    }

    /// For earlier kubelets.
    pub mod v1alpha1 {
        tonic::include_proto!("v1alpha1");
    }
}

/// The DRA plugin service of earlier kubelets.
#[expect(
    clippy::pedantic,
    clippy::allow_attributes,
    clippy::allow_attributes_without_reason,
    reason = "generated"
)]
pub mod v1beta1 {
    tonic::include_proto!("k8s.io.kubelet.pkg.apis.dra.v1beta1");
}
