/* A small thread pool: workers that spin briefly, then sleep. */
#ifndef REGRAFT_POOL_H
#define REGRAFT_POOL_H

#define POOL_MAX 64

/* Where the threads of one region meet. */
typedef struct barrier barrier_t;

/* A region: every thread of the team runs it with its number `tid` of `team`. */
typedef void (*region_fn)(void *arg, int tid, int team, barrier_t *meet);

int pool_get_threads(void);
void pool_set_threads(int threads);

/* Run `fn` on up to `team` threads, the caller among them. When another caller holds the pool, the region
 * runs on the calling thread alone. */
void pool_run(region_fn fn, void *arg, int team);

/* Wait until all threads of the team have come here. */
void pool_meet(barrier_t *meet);

#endif
