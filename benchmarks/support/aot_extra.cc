// Implements MindSpore's AotExtra without MindSpore: holds attributes and collects workspaces. Python calls these
// functions through ctypes.

#include "../../ms_kfac/kernels/interface/aot_extra.h"

#include <map>
#include <stdexcept>

namespace {

class Extra : public AotExtra {
 public:
  ~Extra() override { delete kernel_data; }
  bool HasAttr(std::string name) override { return integers.count(name) + floats.count(name) + texts.count(name) > 0; }
  bool GetAttrBool(std::string name) override { return integers.at(name).at(0) != 0; }
  int64_t GetAttrInt(std::string name) override { return integers.at(name).at(0); }
  float GetAttrFloat(std::string name) override { return floats.at(name).at(0); }
  std::string GetAttrStr(std::string name) override { return texts.at(name); }
  std::vector<int64_t> GetAttrIntVec(std::string name) override { return integers.at(name); }
  std::vector<float> GetAttrFloatVec(std::string name) override { return floats.at(name); }
  std::vector<std::vector<int64_t>> GetAttrInt2DVec(std::string) override { throw std::out_of_range("not used"); }
  std::vector<std::vector<float>> GetAttrFloat2DVec(std::string) override { throw std::out_of_range("not used"); }

  std::map<std::string, std::vector<int64_t>> integers;
  std::map<std::string, std::vector<float>> floats;
  std::map<std::string, std::string> texts;
};

}  // namespace

extern "C" {

void* extra_new() {
  auto* extra = new Extra;
  extra->kernel_data = nullptr;
  return static_cast<AotExtra*>(extra);
}
void extra_delete(void* extra) { delete static_cast<Extra*>(static_cast<AotExtra*>(extra)); }
void extra_integers(void* extra, const char* name, const int64_t* values, int count) {
  static_cast<Extra*>(static_cast<AotExtra*>(extra))->integers[name].assign(values, values + count);
}
void extra_floats(void* extra, const char* name, const float* values, int count) {
  static_cast<Extra*>(static_cast<AotExtra*>(extra))->floats[name].assign(values, values + count);
}
void extra_text(void* extra, const char* name, const char* text) {
  static_cast<Extra*>(static_cast<AotExtra*>(extra))->texts[name] = text;
}
int extra_workspaces(void* extra) { return static_cast<int>(static_cast<AotExtra*>(extra)->workspaces.size()); }
int64_t extra_workspace(void* extra, int index) {
  return static_cast<int64_t>(static_cast<AotExtra*>(extra)->workspaces.at(index));
}
}
