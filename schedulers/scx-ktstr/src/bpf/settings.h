/* SPDX-License-Identifier: GPL-2.0-only */
/* Numbers that the program in the kernel and its userspace part (src/main.rs) must agree on. */
#ifndef __KTSTR_SETTINGS_H
#define __KTSTR_SETTINGS_H

enum {
	MAX_CPUS = 512,
	MAX_LLCS = 64,
	CGROUP_NAME_BYTES = 64,
	REASON_BYTES = 128,
	MESSAGE_BYTES = 1024,
	DUMP_BYTES = 32768,
};

/* Values of the global `fault`. */
enum fault {
	FAULT_NONE = 0,
	/* One worker goes to a DSQ that nobody takes from. */
	FAULT_STALL_ONE = 1,
	/* Nobody takes from the DSQ of CPU `fault_cpu`, where all its tasks go. */
	FAULT_STRAND_CPU = 2,
	/* Workers of cgroup `starved_cgroup` run once in `starve_ns`. */
	FAULT_STARVE_CGROUP = 3,
	/* Workers go to a CPU that they are not allowed on. */
	FAULT_IGNORE_AFFINITY = 4,
	/* scx_bpf_error() in ops.dispatch. */
	FAULT_ERROR = 5,
	/* Workers with an odd pid are charged many times what they used. */
	FAULT_UNFAIR_SLICES = 6,
	/* All workers pile up in the local DSQ of the first CPU that they are allowed on, which grows. */
	FAULT_LEAK_DSQ = 7,
	/* Workers are charged alike, whatever their weight. */
	FAULT_FLAT_WEIGHTS = 8,
};

#endif
