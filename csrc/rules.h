// The update rules: the math of one element of each optimizer, read by the C++ compiler and by
// nvcc.
//
// A rule is built per tensor and step from its group's values (`make`), and applied per element:
//     operator()(param, grad, s0, s1, s2)   with as many live states as kStates says.
// `grad` comes unscaled, clipped, and negated when maximising.
#pragma once

#include "common.h"

#include <cmath>

namespace fasttrain {

// What a group brings, in the order in which Python passes it; each rule names its own.
constexpr int kMaxValues = 8;

FT_HD float root(float value) {
#ifdef __CUDACC__
    return sqrtf(value);
#else
    return __builtin_sqrtf(value);
#endif
}

// d = g + wd * p;  buf = momentum * buf + (1 - dampening) * d  (buf = d at first);
// p -= lr * (nesterov ? d + momentum * buf : buf)
template <bool Momentum, bool Nesterov> struct Sgd {
    static constexpr int kStates = Momentum ? 1 : 0;
    enum { lr_, decay_, momentum_, dampening_ };
    float lr, decay, momentum, keep, admit;

    FT_HD static Sgd make(const double *v, double, bool first) {
        return {float(v[lr_]), float(v[decay_]), float(v[momentum_]),
                first ? 0.0f : float(v[momentum_]), first ? 1.0f : float(1.0 - v[dampening_])};
    }
    FT_HD void operator()(float &p, float g, float &buffer, float &, float &) const {
        const float d = g + decay * p;
        if constexpr (Momentum) {
            buffer = keep * buffer + admit * d;
            p -= lr * (Nesterov ? d + momentum * buffer : buffer);
        } else {
            p -= lr * d;
        }
    }
};

// m = b1 m + (1 - b1) g;  v = b2 v + (1 - b2) g^2;  p -= lr m^ / (sqrt(v^) + eps), with the bias
// corrections m^ = m / (1 - b1^t), v^ = v / (1 - b2^t); AMSGrad divides by the largest v so far.
// Decoupled decay shrinks p first (AdamW); L2 decay adds wd * p to g (Adam).
template <bool Amsgrad> struct Adam {
    static constexpr int kStates = Amsgrad ? 3 : 2;
    enum { lr_, beta1_, beta2_, eps_, decay_, decoupled_ };
    float admit1, beta2, admit2, step_size, eps, shrink, l2;

    // The root of v's correction is moved from the divisor to the step size: one division less.
    FT_HD static Adam make(const double *v, double t, bool) {
        const bool decoupled = v[decoupled_] != 0.0;
        const double correction = sqrt(1.0 - pow(v[beta2_], t));
        return {float(1.0 - v[beta1_]),
                float(v[beta2_]),
                float(1.0 - v[beta2_]),
                float(v[lr_] * correction / (1.0 - pow(v[beta1_], t))),
                float(v[eps_] * correction),
                decoupled ? float(1.0 - v[lr_] * v[decay_]) : 1.0f,
                decoupled ? 0.0f : float(v[decay_])};
    }
    FT_HD void operator()(float &p, float g, float &m, float &v, float &largest) const {
        p *= shrink;
        g += l2 * p;
        m += admit1 * (g - m);
        v = beta2 * v + admit2 * g * g;
        float second = v;
        if constexpr (Amsgrad) {
            largest = v > largest ? v : largest;
            second = largest;
        }
        p -= step_size * m / (root(second) + eps);
    }
};

// sum += g^2;  p -= lr / (1 + (t - 1) lr_decay) * g / (sqrt(sum) + eps)
struct Adagrad {
    static constexpr int kStates = 1;
    enum { lr_, lr_decay_, decay_, eps_ };
    float rate, decay, eps;

    FT_HD static Adagrad make(const double *v, double t, bool) {
        return {float(v[lr_] / (1.0 + (t - 1.0) * v[lr_decay_])), float(v[decay_]), float(v[eps_])};
    }
    FT_HD void operator()(float &p, float g, float &sum, float &, float &) const {
        g += decay * p;
        sum += g * g;
        p -= rate * g / (root(sum) + eps);
    }
};

// s = a s + (1 - a) g^2;  centered: h = a h + (1 - a) g, variance s - h^2;
// u = g / (sqrt(variance) + eps);  momentum: buf = mom buf + u, p -= lr buf;  else p -= lr u
template <bool Centered, bool Momentum> struct RmsProp {
    static constexpr int kStates = 1 + int(Centered) + int(Momentum);
    enum { lr_, alpha_, eps_, decay_, momentum_ };
    float lr, alpha, admit, eps, decay, momentum;

    FT_HD static RmsProp make(const double *v, double, bool) {
        return {float(v[lr_]),  float(v[alpha_]), float(1.0 - v[alpha_]),
                float(v[eps_]), float(v[decay_]), float(v[momentum_])};
    }
    FT_HD void operator()(float &p, float g, float &square, float &s1, float &s2) const {
        g += decay * p;
        square = alpha * square + admit * g * g;
        float variance = square;
        if constexpr (Centered) {
            s1 += admit * (g - s1);
            variance -= s1 * s1;
        }
        float update = g / (root(variance) + eps);
        if constexpr (Momentum) {
            float &buffer = Centered ? s2 : s1;
            buffer = momentum * buffer + update;
            update = buffer;
        }
        p -= lr * update;
    }
};

// u = sign(b1 m + (1 - b1) g);  p = (1 - lr wd) p - lr u;  m = b2 m + (1 - b2) g
struct Lion {
    static constexpr int kStates = 1;
    enum { lr_, beta1_, beta2_, decay_ };
    float lr, beta1, admit1, beta2, admit2, shrink;

    FT_HD static Lion make(const double *v, double, bool) {
        return {float(v[lr_]),    float(v[beta1_]),       float(1.0 - v[beta1_]),
                float(v[beta2_]), float(1.0 - v[beta2_]), float(1.0 - v[lr_] * v[decay_])};
    }
    FT_HD void operator()(float &p, float g, float &m, float &, float &) const {
        const float mixed = beta1 * m + admit1 * g;
        const float sign = mixed > 0.0f ? 1.0f : (mixed < 0.0f ? -1.0f : mixed);
        p = p * shrink - lr * sign;
        m = beta2 * m + admit2 * g;
    }
};

// LAMB, first half: m and v as in Adam, and the update u = m^ / (sqrt(v^) + eps) + wd p, whose norm
// over the tensor sets the trust ratio |p| / |u| of the second half, p -= lr ratio u.
struct Lamb {
    static constexpr int kStates = 2;
    enum { lr_, beta1_, beta2_, eps_, decay_, corrected_ };
    float admit1, beta2, admit2, correction, eps, decay, lr;

    FT_HD static Lamb make(const double *v, double t, bool) {
        const bool corrected = v[corrected_] != 0.0;
        const double first = corrected ? 1.0 - pow(v[beta1_], t) : 1.0;
        const double second = corrected ? sqrt(1.0 - pow(v[beta2_], t)) : 1.0;
        return {float(1.0 - v[beta1_]), float(v[beta2_]),        float(1.0 - v[beta2_]),
                float(second / first),  float(v[eps_] * second), float(v[decay_]),
                float(v[lr_])};
    }
    FT_HD float update(float p, float m, float v) const {
        return correction * m / (root(v) + eps) + decay * p;
    }
    FT_HD void operator()(float &, float g, float &m, float &v, float &) const {
        m += admit1 * (g - m);
        v = beta2 * v + admit2 * g * g;
    }
};

enum class RuleKind : int {
    sgd,
    sgd_momentum,
    sgd_nesterov,
    adam,
    adam_amsgrad,
    adagrad,
    rmsprop,
    rmsprop_momentum,
    rmsprop_centered,
    rmsprop_centered_momentum,
    lion,
    lamb,
};
constexpr int kNumRules = int(RuleKind::lamb) + 1;
constexpr const char *kRuleNames[kNumRules] = {"sgd",
                                               "sgd_momentum",
                                               "sgd_nesterov",
                                               "adam",
                                               "adam_amsgrad",
                                               "adagrad",
                                               "rmsprop",
                                               "rmsprop_momentum",
                                               "rmsprop_centered",
                                               "rmsprop_centered_momentum",
                                               "lion",
                                               "lamb"};

// Room for any rule, so that tables can hold them side by side.
struct alignas(8) RuleBytes {
    unsigned char bytes[48];
};

// A rule of known type in its bytes.
template <class Rule> FT_HD void store_rule(RuleBytes &room, const Rule &rule) {
    static_assert(sizeof(Rule) <= sizeof(RuleBytes));
    memcpy(&room, &rule, sizeof(Rule));
}

// Calls `visitor` with a null pointer of the rule's type.
template <class Visitor> FT_HD auto visit_rule(RuleKind kind, Visitor &&visitor) {
    switch (kind) {
    case RuleKind::sgd:
        return visitor(static_cast<Sgd<false, false> *>(nullptr));
    case RuleKind::sgd_momentum:
        return visitor(static_cast<Sgd<true, false> *>(nullptr));
    case RuleKind::sgd_nesterov:
        return visitor(static_cast<Sgd<true, true> *>(nullptr));
    case RuleKind::adam:
        return visitor(static_cast<Adam<false> *>(nullptr));
    case RuleKind::adam_amsgrad:
        return visitor(static_cast<Adam<true> *>(nullptr));
    case RuleKind::adagrad:
        return visitor(static_cast<Adagrad *>(nullptr));
    case RuleKind::rmsprop:
        return visitor(static_cast<RmsProp<false, false> *>(nullptr));
    case RuleKind::rmsprop_momentum:
        return visitor(static_cast<RmsProp<false, true> *>(nullptr));
    case RuleKind::rmsprop_centered:
        return visitor(static_cast<RmsProp<true, false> *>(nullptr));
    case RuleKind::rmsprop_centered_momentum:
        return visitor(static_cast<RmsProp<true, true> *>(nullptr));
    case RuleKind::lion:
        return visitor(static_cast<Lion *>(nullptr));
    default:
        return visitor(static_cast<Lamb *>(nullptr));
    }
}

} // namespace fasttrain
