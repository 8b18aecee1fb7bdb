/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * scx_ktstr: a plain sched_ext scheduler to test the harness with, and faults that a test can switch on.
 *
 * Each LLC has a DSQ ordered by vtime, weighted by niceness; a CPU takes from its own LLC's, then from the
 * others'. Tasks bound to one CPU have a DSQ of that CPU, so that nobody searches past them. A task that
 * wakes to an idle CPU goes there directly. Weights and quotas of cgroups are ignored: whoever declares this
 * scheduler turns the checks cpu_share and cpu_quota off.
 *
 * Faults act on workers only, which are tasks in any cgroup but the root: they begin with the test's load,
 * and never take what runs the test itself.
 */
#include "kernel.h"
#include "settings.h"

char LICENSE[] SEC("license") = "GPL";

/* Set before loading. */
const volatile u32 nr_cpus = 1;
const volatile u32 nr_llcs = 1;
const volatile u32 cpu_llc[MAX_CPUS];
const volatile u64 slice_ns = 20000000;
const volatile u64 starve_ns = 4000000000;
const volatile char starved_cgroup[CGROUP_NAME_BYTES];

/* May be written from outside while the scheduler runs. */
volatile u32 fault;
volatile u32 fault_cpu;

/* What happened, for whoever looks at a failed scheduler. */
volatile s32 victim_pid;
volatile bool workers_seen;
volatile bool fault_seen;
u64 vtime_now;
u64 starved_served_at_ns;
u64 nr_enqueued;
u64 nr_direct;
u64 nr_dispatched;
u64 nr_stolen;
u64 nr_kicked;

/* How it ended; apart from .bss, which is for reading. */
struct exit_record {
	s32 kind;
	s64 exit_code;
	char reason[REASON_BYTES];
	char message[MESSAGE_BYTES];
	char dump[DUMP_BYTES];
};
struct exit_record exit_record SEC(".data.exit");

struct cpu_state {
	/* Counts dispatches: every other one takes from the LLC's DSQ first. */
	u64 turn;
	u64 nr_pinned;
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, u32);
	__type(value, struct cpu_state);
} cpu_states SEC(".maps");

/* DSQ ids. */
#define DSQ_OF_LLC(llc) ((u64)(llc))
#define DSQ_OF_CPU(cpu) (0x1000ULL + (u64)(cpu))
#define DSQ_LOST 0x2000ULL
#define DSQ_STARVED 0x2001ULL

static __always_inline void count(u64 *counter)
{
	__sync_fetch_and_add(counter, 1);
}

static __always_inline bool earlier(u64 a, u64 b)
{
	return (s64)(a - b) < 0;
}

static bool is_worker(const struct task_struct *p)
{
	return p->cgroups->dfl_cgrp->level > 0;
}

static bool is_in_starved_cgroup(const struct task_struct *p)
{
	char name[CGROUP_NAME_BYTES] = {};

	if (bpf_probe_read_kernel_str(name, sizeof(name), p->cgroups->dfl_cgrp->kn->name) < 0)
		return false;
	return bpf_strncmp(name, sizeof(name), (const char *)starved_cgroup) == 0;
}

static u64 dsq_of_llc_of(s32 cpu)
{
	u32 index = cpu;

	return index < MAX_CPUS ? DSQ_OF_LLC(cpu_llc[index]) : DSQ_OF_LLC(0);
}

/* Whether the fault that is on wants to have `p`, which is about to run on `cpu`. */
static bool is_victim(struct task_struct *p, s32 cpu)
{
	switch (fault) {
	case FAULT_STRAND_CPU:
		return workers_seen && (u32)cpu == fault_cpu;
	case FAULT_STALL_ONE:
		if (!is_worker(p))
			return false;
		if (!victim_pid)
			victim_pid = p->pid;
		return p->pid == victim_pid;
	case FAULT_STARVE_CGROUP:
		return is_in_starved_cgroup(p);
	case FAULT_IGNORE_AFFINITY:
		return is_worker(p) && p->nr_cpus_allowed < nr_cpus;
	case FAULT_LEAK_DSQ:
		return is_worker(p);
	default:
		return false;
	}
}

static s32 forbidden_cpu(const struct task_struct *p)
{
	u32 cpu;

	for (cpu = 0; cpu < MAX_CPUS && cpu < nr_cpus; cpu++) {
		if (!bpf_cpumask_test_cpu(cpu, p->cpus_ptr))
			return cpu;
	}
	return 0;
}

static void misplace(struct task_struct *p, u64 enq_flags)
{
	u64 local_on = KERNEL_ENUM(scx_dsq_id_flags, SCX_DSQ_LOCAL_ON);

	fault_seen = true;
	switch (fault) {
	case FAULT_STALL_ONE:
		insert(p, DSQ_LOST, slice_ns, enq_flags);
		break;
	case FAULT_STRAND_CPU:
		insert_vtime(p, DSQ_OF_CPU(fault_cpu), slice_ns, p->scx.dsq_vtime, enq_flags);
		break;
	case FAULT_STARVE_CGROUP:
		insert(p, DSQ_STARVED, slice_ns, enq_flags);
		break;
	case FAULT_IGNORE_AFFINITY:
		insert(p, local_on | forbidden_cpu(p), slice_ns, enq_flags);
		break;
	default:
		insert(p, local_on | bpf_cpumask_first(p->cpus_ptr), slice_ns, enq_flags);
		break;
	}
}

SEC("struct_ops/ktstr_select_cpu")
s32 BPF_PROG(ktstr_select_cpu, struct task_struct *p, s32 prev_cpu, u64 wake_flags)
{
	bool is_idle = false;
	s32 cpu = scx_bpf_select_cpu_dfl(p, prev_cpu, wake_flags, &is_idle);

	if (is_idle && !is_victim(p, cpu)) {
		count(&nr_direct);
		insert(p, KERNEL_ENUM(scx_dsq_id_flags, SCX_DSQ_LOCAL), slice_ns, 0);
	}
	return cpu;
}

SEC("struct_ops/ktstr_enqueue")
void BPF_PROG(ktstr_enqueue, struct task_struct *p, u64 enq_flags)
{
	s32 cpu = scx_bpf_task_cpu(p);
	u64 vtime = p->scx.dsq_vtime;
	u64 dsq;

	count(&nr_enqueued);
	if (!workers_seen && is_worker(p))
		workers_seen = true;
	if (is_victim(p, cpu)) {
		misplace(p, enq_flags);
		return;
	}

	/* A task that slept has no claim to more than one slice ahead of the others. */
	if (earlier(vtime, vtime_now - slice_ns))
		vtime = vtime_now - slice_ns;
	dsq = p->nr_cpus_allowed == 1 ? DSQ_OF_CPU(cpu) : dsq_of_llc_of(cpu);
	insert_vtime(p, dsq, slice_ns, vtime, enq_flags);

	/* The CPU that it is queued from may be busy while another one sleeps. */
	if (p->nr_cpus_allowed > 1) {
		s32 idle = scx_bpf_pick_idle_cpu(p->cpus_ptr, 0);

		if (idle >= 0) {
			count(&nr_kicked);
			scx_bpf_kick_cpu(idle, KERNEL_ENUM(scx_kick_flags, SCX_KICK_IDLE));
		}
	}
}

static bool take_starved(void)
{
	u64 now = bpf_ktime_get_ns();

	if (now - starved_served_at_ns < starve_ns || !move_to_local(DSQ_STARVED))
		return false;
	starved_served_at_ns = now;
	return true;
}

static bool take_from_llcs(s32 cpu)
{
	u64 own = dsq_of_llc_of(cpu);
	u32 i;

	if (move_to_local(own))
		return true;
	for (i = 0; i < MAX_LLCS && i < nr_llcs; i++) {
		if (DSQ_OF_LLC(i) != own && move_to_local(DSQ_OF_LLC(i))) {
			count(&nr_stolen);
			return true;
		}
	}
	return false;
}

static bool take_pinned(s32 cpu, struct cpu_state *state)
{
	if (fault == FAULT_STRAND_CPU && workers_seen && (u32)cpu == fault_cpu)
		return false;
	if (!move_to_local(DSQ_OF_CPU(cpu)))
		return false;
	state->nr_pinned++;
	return true;
}

SEC("struct_ops/ktstr_dispatch")
void BPF_PROG(ktstr_dispatch, s32 cpu, struct task_struct *prev)
{
	struct cpu_state *state;
	bool taken;
	u32 zero = 0;

	if (fault == FAULT_ERROR && workers_seen) {
		fault_seen = true;
		scx_bpf_error("ktstr: dispatch gives up on CPU %d", cpu);
		return;
	}
	state = bpf_map_lookup_elem(&cpu_states, &zero);
	if (!state)
		return;
	if (take_starved())
		return;
	/* In turns, so that pinned tasks and the others can't keep each other from a CPU. */
	if (state->turn++ & 1)
		taken = take_pinned(cpu, state) || take_from_llcs(cpu);
	else
		taken = take_from_llcs(cpu) || take_pinned(cpu, state);
	if (taken)
		count(&nr_dispatched);
}

SEC("struct_ops/ktstr_running")
void BPF_PROG(ktstr_running, struct task_struct *p)
{
	if (earlier(vtime_now, p->scx.dsq_vtime))
		vtime_now = p->scx.dsq_vtime;
}

SEC("struct_ops/ktstr_stopping")
void BPF_PROG(ktstr_stopping, struct task_struct *p, bool runnable)
{
	u64 left = p->scx.slice;
	u64 used = left < slice_ns ? slice_ns - left : 0;
	u32 weight = p->scx.weight ?: 100;
	u64 charge = used * 100 / weight;

	if (fault == FAULT_UNFAIR_SLICES && (p->pid & 1) && is_worker(p)) {
		fault_seen = true;
		charge *= 16;
	}
	if (fault == FAULT_FLAT_WEIGHTS && is_worker(p)) {
		fault_seen = true;
		charge = used;
	}
	set_vtime(p, p->scx.dsq_vtime + charge);
}

SEC("struct_ops/ktstr_enable")
void BPF_PROG(ktstr_enable, struct task_struct *p)
{
	set_vtime(p, vtime_now);
}

SEC("struct_ops.s/ktstr_init")
s32 BPF_PROG(ktstr_init)
{
	s32 failed;
	u32 i;

	failed = scx_bpf_create_dsq(DSQ_LOST, -1);
	if (failed)
		return failed;
	failed = scx_bpf_create_dsq(DSQ_STARVED, -1);
	if (failed)
		return failed;
	for (i = 0; i < MAX_LLCS && i < nr_llcs; i++) {
		failed = scx_bpf_create_dsq(DSQ_OF_LLC(i), -1);
		if (failed)
			return failed;
	}
	for (i = 0; i < MAX_CPUS && i < nr_cpus; i++) {
		failed = scx_bpf_create_dsq(DSQ_OF_CPU(i), -1);
		if (failed)
			return failed;
	}
	return 0;
}

SEC("struct_ops/ktstr_dump")
void BPF_PROG(ktstr_dump, struct scx_dump_ctx *dump_ctx)
{
	if (!bpf_ksym_exists(scx_bpf_dump_bstr))
		return;
	scx_bpf_dump("fault=%u fault_seen=%u victim_pid=%d\n", fault, fault_seen, victim_pid);
	scx_bpf_dump("enqueued=%llu direct=%llu dispatched=%llu stolen=%llu\n", nr_enqueued, nr_direct,
		     nr_dispatched, nr_stolen);
}

SEC("struct_ops/ktstr_exit")
void BPF_PROG(ktstr_exit, struct scx_exit_info *info)
{
	bpf_probe_read_kernel_str(exit_record.reason, sizeof(exit_record.reason), info->reason);
	bpf_probe_read_kernel_str(exit_record.message, sizeof(exit_record.message), info->msg);
	bpf_probe_read_kernel_str(exit_record.dump, sizeof(exit_record.dump), info->dump);
	exit_record.exit_code = info->exit_code;
	/* Last: userspace takes it for the sign that the rest is there. */
	__sync_fetch_and_add(&exit_record.kind, info->kind);
}

/* Refused by the verifier: nothing bounds the index. Loaded by `--fault never-load` only. */
SEC("syscall")
int ktstr_never_loads(void *ctx)
{
	return exit_record.dump[bpf_get_prandom_u32()];
}

SEC(".struct_ops.link")
struct sched_ext_ops ktstr_ops = {
	.select_cpu = (void *)ktstr_select_cpu,
	.enqueue = (void *)ktstr_enqueue,
	.dispatch = (void *)ktstr_dispatch,
	.running = (void *)ktstr_running,
	.stopping = (void *)ktstr_stopping,
	.enable = (void *)ktstr_enable,
	.dump = (void *)ktstr_dump,
	.init = (void *)ktstr_init,
	.exit = (void *)ktstr_exit,
	.name = "ktstr",
};
