/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What the scheduler uses of the kernel, and nothing else: no generated vmlinux.h is needed to build it.
 *
 * Types hold only the fields that are read; CO-RE relocates them to where the running kernel has them.
 * Kernel functions are weak and looked up by presence, newest first, so that one binary runs on all kernels
 * with sched_ext. libbpf drops the last `___suffix` of a name when it looks the name up.
 */
#ifndef __KTSTR_KERNEL_H
#define __KTSTR_KERNEL_H

typedef unsigned char __u8;
typedef short __s16;
typedef unsigned short __u16;
typedef int __s32;
typedef unsigned int __u32;
typedef long long __s64;
typedef unsigned long long __u64;
typedef __u16 __be16;
typedef __u32 __be32;
typedef __u32 __wsum;

typedef __u8 u8;
typedef __u32 u32;
typedef __s32 s32;
typedef __u64 u64;
typedef __s64 s64;
typedef _Bool bool;
#define true 1
#define false 0
#define NULL ((void *)0)

/* include/uapi/linux/bpf.h; needed by the map below and by libbpf's headers. */
enum bpf_map_type {
	BPF_MAP_TYPE_PERCPU_ARRAY = 6,
};

#include <bpf/bpf_helpers.h>
#include <bpf/bpf_core_read.h>
#include <bpf/bpf_tracing.h>

#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)

/* A complete type, though nothing is read from it: libbpf takes no other for that of a kernel function. */
struct cpumask {
	unsigned long bits[1];
};

/* include/linux/sched/ext.h */
struct sched_ext_entity {
	u32 weight;
	u64 slice;
	u64 dsq_vtime;
};

struct kernfs_node {
	const char *name;
};

struct cgroup {
	int level;
	struct kernfs_node *kn;
};

struct css_set {
	struct cgroup *dfl_cgrp;
};

struct task_struct {
	int pid;
	int nr_cpus_allowed;
	const struct cpumask *cpus_ptr;
	struct css_set *cgroups;
	struct sched_ext_entity scx;
};

/* kernel/sched/ext.c; ext_internal.h in later kernels */
enum scx_exit_kind {
	SCX_EXIT_NONE,
};

struct scx_exit_info {
	enum scx_exit_kind kind;
	s64 exit_code;
	const char *reason;
	char *msg;
	char *dump;
};

struct scx_dump_ctx;

enum scx_dsq_id_flags {
	SCX_DSQ_LOCAL,
	SCX_DSQ_LOCAL_ON,
};

enum scx_kick_flags {
	SCX_KICK_IDLE,
};

#pragma clang attribute pop

/* A value as the running kernel has it; the numbers above are placeholders. */
#define KERNEL_ENUM(type, value) bpf_core_enum_value(enum type, value)

/*
 * Members are matched by name; those that a kernel lacks may stay zero. Not relocated: libbpf builds the
 * kernel's own struct from it.
 */
struct sched_ext_ops {
	s32 (*select_cpu)(struct task_struct *p, s32 prev_cpu, u64 wake_flags);
	void (*enqueue)(struct task_struct *p, u64 enq_flags);
	void (*dispatch)(s32 cpu, struct task_struct *prev);
	void (*running)(struct task_struct *p);
	void (*stopping)(struct task_struct *p, bool runnable);
	void (*enable)(struct task_struct *p);
	void (*dump)(struct scx_dump_ctx *ctx);
	s32 (*init)(void);
	void (*exit)(struct scx_exit_info *info);
	u32 timeout_ms;
	char name[128];
};

bool bpf_cpumask_test_cpu(u32 cpu, const struct cpumask *cpumask) __ksym;
u32 bpf_cpumask_first(const struct cpumask *cpumask) __ksym;

s32 scx_bpf_create_dsq(u64 dsq_id, s32 node) __ksym;
s32 scx_bpf_select_cpu_dfl(struct task_struct *p, s32 prev_cpu, u64 wake_flags, bool *is_idle) __ksym;
s32 scx_bpf_pick_idle_cpu(const struct cpumask *cpus_allowed, u64 flags) __ksym;
void scx_bpf_kick_cpu(s32 cpu, u64 flags) __ksym;
s32 scx_bpf_task_cpu(const struct task_struct *p) __ksym;
void scx_bpf_error_bstr(char *fmt, unsigned long long *data, u32 data_len) __ksym;
void scx_bpf_dump_bstr(char *fmt, unsigned long long *data, u32 data_len) __ksym __weak;

/* Since 6.13; before, scx_bpf_dispatch(). The variant that returns whether it worked since 6.19. */
bool scx_bpf_dsq_insert___v2___k(struct task_struct *p, u64 dsq_id, u64 slice, u64 enq_flags) __ksym __weak;
void scx_bpf_dsq_insert___v1(struct task_struct *p, u64 dsq_id, u64 slice, u64 enq_flags) __ksym __weak;
void scx_bpf_dispatch___k(struct task_struct *p, u64 dsq_id, u64 slice, u64 enq_flags) __ksym __weak;

struct scx_bpf_dsq_insert_vtime_args {
	u64 dsq_id;
	u64 slice;
	u64 vtime;
	u64 enq_flags;
};

bool __scx_bpf_dsq_insert_vtime___k(struct task_struct *p, struct scx_bpf_dsq_insert_vtime_args *args) __ksym __weak;
void scx_bpf_dsq_insert_vtime___k(struct task_struct *p, u64 dsq_id, u64 slice, u64 vtime,
				  u64 enq_flags) __ksym __weak;
void scx_bpf_dispatch_vtime___k(struct task_struct *p, u64 dsq_id, u64 slice, u64 vtime,
				u64 enq_flags) __ksym __weak;

/* Since 6.13; before, scx_bpf_consume(). */
bool scx_bpf_dsq_move_to_local___k(u64 dsq_id) __ksym __weak;
bool scx_bpf_consume___k(u64 dsq_id) __ksym __weak;

/* Since 6.19; before, the field is written directly. */
bool scx_bpf_task_set_dsq_vtime___k(struct task_struct *p, u64 vtime) __ksym __weak;

static __always_inline void insert(struct task_struct *p, u64 dsq_id, u64 slice, u64 enq_flags)
{
	if (bpf_ksym_exists(scx_bpf_dsq_insert___v2___k))
		scx_bpf_dsq_insert___v2___k(p, dsq_id, slice, enq_flags);
	else if (bpf_ksym_exists(scx_bpf_dsq_insert___v1))
		scx_bpf_dsq_insert___v1(p, dsq_id, slice, enq_flags);
	else
		scx_bpf_dispatch___k(p, dsq_id, slice, enq_flags);
}

static __always_inline void insert_vtime(struct task_struct *p, u64 dsq_id, u64 slice, u64 vtime, u64 enq_flags)
{
	if (bpf_ksym_exists(__scx_bpf_dsq_insert_vtime___k)) {
		struct scx_bpf_dsq_insert_vtime_args args = {
			.dsq_id = dsq_id,
			.slice = slice,
			.vtime = vtime,
			.enq_flags = enq_flags,
		};

		__scx_bpf_dsq_insert_vtime___k(p, &args);
	} else if (bpf_ksym_exists(scx_bpf_dsq_insert_vtime___k)) {
		scx_bpf_dsq_insert_vtime___k(p, dsq_id, slice, vtime, enq_flags);
	} else {
		scx_bpf_dispatch_vtime___k(p, dsq_id, slice, vtime, enq_flags);
	}
}

static __always_inline bool move_to_local(u64 dsq_id)
{
	if (bpf_ksym_exists(scx_bpf_dsq_move_to_local___k))
		return scx_bpf_dsq_move_to_local___k(dsq_id);
	return scx_bpf_consume___k(dsq_id);
}

static __always_inline void set_vtime(struct task_struct *p, u64 vtime)
{
	if (bpf_ksym_exists(scx_bpf_task_set_dsq_vtime___k))
		scx_bpf_task_set_dsq_vtime___k(p, vtime);
	else
		p->scx.dsq_vtime = vtime;
}

/*
 * The format is not constant: the kernel's prototype wants memory that may be written. The array has an
 * element even without arguments, since one of none can't be passed.
 */
#define scx_bpf_text(function, fmt, args...)						\
({											\
	static char ___fmt[] = fmt;							\
	unsigned long long ___param[___bpf_narg(args) ?: 1] = {};			\
	_Pragma("GCC diagnostic push")							\
	_Pragma("GCC diagnostic ignored \"-Wint-conversion\"")				\
	___bpf_fill(___param, args);							\
	_Pragma("GCC diagnostic pop")							\
	function(___fmt, ___param, sizeof(___param));					\
})
#define scx_bpf_error(fmt, args...) scx_bpf_text(scx_bpf_error_bstr, fmt, ##args)
#define scx_bpf_dump(fmt, args...) scx_bpf_text(scx_bpf_dump_bstr, fmt, ##args)

#endif
