// Preloaded into a process, shifts its wall clock by the seconds in the first 8 bytes of the file that
// VFASTML_TEST_CLOCK_SHIFT names, which may change while the process runs. Monotonic clocks stay as they are.
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

#include <cstdint>
#include <cstdlib>

static const volatile int64_t *mapped_shift() {
  static const int64_t none = 0;
  const char *path = getenv("VFASTML_TEST_CLOCK_SHIFT");
  const int file = path ? open(path, O_RDONLY) : -1;
  if (file < 0) return &none;
  void *page = mmap(nullptr, sizeof(int64_t), PROT_READ, MAP_SHARED, file, 0);
  close(file);
  return page == MAP_FAILED ? &none : static_cast<const volatile int64_t *>(page);
}

static int64_t shift() {
  static const volatile int64_t *seconds = mapped_shift();
  return *seconds;
}

extern "C" int clock_gettime(clockid_t clock, struct timespec *now) noexcept {
  const int status = static_cast<int>(syscall(SYS_clock_gettime, clock, now));
  if (status == 0 && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE)) now->tv_sec += shift();
  return status;
}

extern "C" int gettimeofday(struct timeval *__restrict now, void *__restrict) noexcept {
  struct timespec exact;
  const int status = clock_gettime(CLOCK_REALTIME, &exact);
  now->tv_sec = exact.tv_sec;
  now->tv_usec = exact.tv_nsec / 1000;
  return status;
}

extern "C" time_t time(time_t *now) noexcept {
  struct timespec exact;
  clock_gettime(CLOCK_REALTIME, &exact);
  if (now) *now = exact.tv_sec;
  return exact.tv_sec;
}
