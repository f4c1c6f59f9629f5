#include "pool.h"

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <unistd.h>

#if defined(__x86_64__) || defined(__i386__)
#define RELAX() __builtin_ia32_pause()
#elif defined(__aarch64__)
#define RELAX() __asm__ volatile("yield")
#else
#define RELAX() ((void)0)
#endif

/* About 20 microseconds: long enough to bridge two layers of one step, short enough to harm nobody. */
#define SPIN_WORK 600
#define SPIN_MEET 2000

struct barrier {
    atomic_int arrived;
    atomic_uint round;
    int team;
};

static struct {
    pthread_mutex_t owner; /* held by the caller whose region runs */
    pthread_mutex_t sleep;
    pthread_cond_t wake;
    atomic_uint epoch; /* one more for each region */
    atomic_int running;
    int workers; /* threads started */
    int threads; /* asked for by the user */
    region_fn fn;
    void *arg;
    barrier_t meet;
} pool = {.owner = PTHREAD_MUTEX_INITIALIZER,
          .sleep = PTHREAD_MUTEX_INITIALIZER,
          .wake = PTHREAD_COND_INITIALIZER,
          .threads = 1};

int pool_get_threads(void) { return pool.threads; }

void pool_set_threads(int threads) {
    pool.threads = threads < 1 ? 1 : threads > POOL_MAX ? POOL_MAX : threads;
}

void pool_meet(barrier_t *meet) {
    if (meet->team == 1) return;
    unsigned round = atomic_load(&meet->round);
    if (atomic_fetch_add(&meet->arrived, 1) + 1 == meet->team) {
        atomic_store(&meet->arrived, 0);
        atomic_fetch_add(&meet->round, 1);
        return;
    }
    for (int spin = 0; atomic_load(&meet->round) == round; spin++) {
        if (spin < SPIN_MEET)
            RELAX();
        else
            sched_yield();
    }
}

static unsigned next_region(unsigned seen) {
    for (int spin = 0; spin < SPIN_WORK; spin++) {
        unsigned now = atomic_load(&pool.epoch);
        if (now != seen) return now;
        RELAX();
    }
    pthread_mutex_lock(&pool.sleep);
    while (atomic_load(&pool.epoch) == seen) pthread_cond_wait(&pool.wake, &pool.sleep);
    pthread_mutex_unlock(&pool.sleep);
    return atomic_load(&pool.epoch);
}

typedef struct {
    int tid;
    unsigned seen;
} worker_t;

static worker_t worker_args[POOL_MAX];

static void *worker_main(void *arg) {
    worker_t self = *(worker_t *)arg;
    for (;;) {
        self.seen = next_region(self.seen);
        /* A worker beyond the team still reports, so that the caller may reuse `pool` afterwards. */
        if (self.tid < pool.meet.team) pool.fn(pool.arg, self.tid, pool.meet.team, &pool.meet);
        atomic_fetch_sub(&pool.running, 1);
    }
    return NULL;
}

/* The child of a fork has none of the workers. */
static void forget_workers(void) {
    pool.workers = 0;
    pthread_mutex_init(&pool.owner, NULL);
    pthread_mutex_init(&pool.sleep, NULL);
    pthread_cond_init(&pool.wake, NULL);
}

static int start_workers(int wanted) {
    static int registered = 0;
    if (!registered) {
        pthread_atfork(NULL, NULL, forget_workers);
        registered = 1;
    }
    while (pool.workers < wanted) {
        pthread_t thread;
        worker_t *arg = &worker_args[pool.workers + 1];
        *arg = (worker_t){pool.workers + 1, atomic_load(&pool.epoch)};
        if (pthread_create(&thread, NULL, worker_main, arg) != 0) break;
        pthread_detach(thread);
        pool.workers++;
    }
    return pool.workers;
}

void pool_run(region_fn fn, void *arg, int team) {
    if (team > 1 && pthread_mutex_trylock(&pool.owner) == 0) {
        int workers = start_workers(team - 1);
        team = team <= workers + 1 ? team : workers + 1;
        if (team > 1) {
            pool.fn = fn;
            pool.arg = arg;
            atomic_store(&pool.meet.arrived, 0);
            pool.meet.team = team;
            atomic_store(&pool.running, workers);
            pthread_mutex_lock(&pool.sleep);
            atomic_fetch_add(&pool.epoch, 1);
            pthread_cond_broadcast(&pool.wake);
            pthread_mutex_unlock(&pool.sleep);
            fn(arg, 0, team, &pool.meet);
            for (int spin = 0; atomic_load(&pool.running) > 0; spin++) {
                if (spin < SPIN_MEET)
                    RELAX();
                else
                    sched_yield();
            }
            pthread_mutex_unlock(&pool.owner);
            return;
        }
        pthread_mutex_unlock(&pool.owner);
    }
    barrier_t alone = {.team = 1};
    fn(arg, 0, 1, &alone);
}
