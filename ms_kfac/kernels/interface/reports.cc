#include "reports.h"

namespace ms_kfac {
namespace {

std::atomic<Reporter> registered{nullptr};
std::atomic<bool> failed{false};

}  // namespace

Reporter reporter() { return registered.load(); }

std::atomic<bool>& failure_reported() { return failed; }

}  // namespace ms_kfac

extern "C" void ms_kfac_set_reporter(ms_kfac::Reporter function) { ms_kfac::registered.store(function); }
