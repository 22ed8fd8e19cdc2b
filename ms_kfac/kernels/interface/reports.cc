#include "reports.h"

#include <atomic>

namespace ms_kfac {
namespace {

std::atomic<Reporter> registered{nullptr};

}  // namespace

Reporter reporter() { return registered.load(); }

}  // namespace ms_kfac

extern "C" void ms_kfac_set_reporter(ms_kfac::Reporter function) { ms_kfac::registered.store(function); }
