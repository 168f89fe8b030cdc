import Foundation

/// What this process was built with, beside what is tested.
public enum Sanitizers {
  /// Whether the thread sanitizer watches this process.
  public static let isThreadSanitized = dlsym(nil, "__tsan_func_entry") != nil

  /// Whether the allocation counter is left out: a sanitizer's allocator has to come first in the program. Not asked of the
  /// counter, which a build may lose by mistake: that has to fail.
  public static let areAllocationsUncounted = isThreadSanitized || dlsym(nil, "__asan_init") != nil

  /// Why searches through seeds are left out under the thread sanitizer: each run has one thread and shares nothing, so
  /// there is nothing to find, and they would take twenty times as long.
  public static let oneThreadReason = "runs on one thread, of which the thread sanitizer can say nothing"
}
