/* What the C compiler makes of the header's structs: one "name value" a line,
   for tests/c_abi.rs to compare with Rust's. Compiled as C and as C++. */
#include <stdio.h>

#include "ringroad.h"
#include "ringroad.h" /* twice is no harm */

#ifdef __cplusplus
#define STATIC_ASSERT static_assert
#else
#define STATIC_ASSERT _Static_assert
#endif

/* Every version of a configuration begins with its size. */
STATIC_ASSERT(offsetof(struct rr_config, size) == 0, "size comes first");
STATIC_ASSERT(sizeof(((struct rr_config *)0)->size) == 4, "size is 32 bit");
STATIC_ASSERT(offsetof(struct rr_sim_config, size) == 0, "size comes first");
STATIC_ASSERT(sizeof(((struct rr_sim_config *)0)->size) == 4, "size is 32 bit");

#define SIZE(type) printf("%s %zu\n", #type, sizeof(struct type))
#define FIELD(type, field) printf("%s.%s %zu\n", #type, #field, offsetof(struct type, field))

int main(void)
{
    SIZE(rr_config);
    FIELD(rr_config, workers);
    FIELD(rr_config, interface);
    FIELD(rr_config, address);
    FIELD(rr_config, gateway);
    FIELD(rr_config, cpus);
    FIELD(rr_config, wait);
    FIELD(rr_config, frames);
    FIELD(rr_config, seed);
    SIZE(rr_sim_config);
    FIELD(rr_sim_config, raw_ip);
    FIELD(rr_sim_config, address);
    FIELD(rr_sim_config, gateway);
    FIELD(rr_sim_config, mac);
    FIELD(rr_sim_config, mtu);
    FIELD(rr_sim_config, neighbor_retry_ns);
    FIELD(rr_sim_config, fragment_timeout_ns);
    FIELD(rr_sim_config, tcp_send_buffer);
    FIELD(rr_sim_config, tcp_initial_rto_ns);
    FIELD(rr_sim_config, tcp_coalesce);
    SIZE(rr_zc_frame);
    FIELD(rr_zc_frame, len);
    FIELD(rr_zc_frame, id);
    return 0;
}
