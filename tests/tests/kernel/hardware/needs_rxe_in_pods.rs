//! RDMA by software between network namespaces. Up to Debian's Linux 6.18 it receives in the machine's own
//! namespace only, wherever its NIC is; in 7.3 it does not (`rxe_ns.c` in `drivers/infiniband/sw/rxe`).

use super::rxe::pods_talk_by_rdma;

#[test]
#[ignore = "needs hardware: vm ring"]
fn containers_of_two_pods_talk_by_rdma_over_their_nics() {
    pods_talk_by_rdma();
}
