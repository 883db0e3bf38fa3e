//! The messages of NRI, generated from `proto/nri.proto`.

tonic::include_proto!("nri.pkg.api.v1alpha1");
