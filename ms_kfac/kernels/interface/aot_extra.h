// The attributes of a Custom AOT operator, as set in Python.
//
// SPDX-FileCopyrightText: 2022 Huawei Technologies Co., Ltd
// SPDX-FileCopyrightText: 2026 The ms_kfac developers
// SPDX-License-Identifier: Apache-2.0
//
// The class mirrors mindspore::AotExtra of MindSpore 2.10 (ccsrc/utils/custom_aot_extra.h): its virtual functions and
// members must keep their order. The installed header can't be included, because it pulls in MindSpore's internals.
// Strings cross this boundary by value. Therefore everything is built with -D_GLIBCXX_USE_CXX11_ABI=0, like MindSpore's
// own binaries.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

struct AotKernelData {
  virtual ~AotKernelData() = default;
};

struct AotExtra {
  virtual ~AotExtra() = default;
  virtual bool HasAttr(std::string name) = 0;
  virtual bool GetAttrBool(std::string name) = 0;
  virtual int64_t GetAttrInt(std::string name) = 0;
  virtual float GetAttrFloat(std::string name) = 0;
  virtual std::string GetAttrStr(std::string name) = 0;
  virtual std::vector<int64_t> GetAttrIntVec(std::string name) = 0;
  virtual std::vector<float> GetAttrFloatVec(std::string name) = 0;
  virtual std::vector<std::vector<int64_t>> GetAttrInt2DVec(std::string name) = 0;
  virtual std::vector<std::vector<float>> GetAttrFloat2DVec(std::string name) = 0;

  std::vector<size_t> workspaces;
  AotKernelData* kernel_data;
};
