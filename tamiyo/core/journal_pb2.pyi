from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class ServiceOpened(_message.Message):
    __slots__ = ("event_time_ns", "opened_unix_ns", "code_fingerprint", "behaviour_flags", "thresholds", "environment", "policy_version", "step_budget_ms", "epoch_budget_ms", "metadata_budget_ms", "commit_budget_ms", "options", "log_id")
    class ThresholdsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: float
        def __init__(self, key: _Optional[str] = ..., value: _Optional[float] = ...) -> None: ...
    class EnvironmentEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    EVENT_TIME_NS_FIELD_NUMBER: _ClassVar[int]
    OPENED_UNIX_NS_FIELD_NUMBER: _ClassVar[int]
    CODE_FINGERPRINT_FIELD_NUMBER: _ClassVar[int]
    BEHAVIOUR_FLAGS_FIELD_NUMBER: _ClassVar[int]
    THRESHOLDS_FIELD_NUMBER: _ClassVar[int]
    ENVIRONMENT_FIELD_NUMBER: _ClassVar[int]
    POLICY_VERSION_FIELD_NUMBER: _ClassVar[int]
    STEP_BUDGET_MS_FIELD_NUMBER: _ClassVar[int]
    EPOCH_BUDGET_MS_FIELD_NUMBER: _ClassVar[int]
    METADATA_BUDGET_MS_FIELD_NUMBER: _ClassVar[int]
    COMMIT_BUDGET_MS_FIELD_NUMBER: _ClassVar[int]
    OPTIONS_FIELD_NUMBER: _ClassVar[int]
    LOG_ID_FIELD_NUMBER: _ClassVar[int]
    event_time_ns: int
    opened_unix_ns: int
    code_fingerprint: str
    behaviour_flags: _containers.RepeatedScalarFieldContainer[str]
    thresholds: _containers.ScalarMap[str, float]
    environment: _containers.ScalarMap[str, str]
    policy_version: str
    step_budget_ms: int
    epoch_budget_ms: int
    metadata_budget_ms: int
    commit_budget_ms: int
    options: Options
    log_id: str
    def __init__(self, event_time_ns: _Optional[int] = ..., opened_unix_ns: _Optional[int] = ..., code_fingerprint: _Optional[str] = ..., behaviour_flags: _Optional[_Iterable[str]] = ..., thresholds: _Optional[_Mapping[str, float]] = ..., environment: _Optional[_Mapping[str, str]] = ..., policy_version: _Optional[str] = ..., step_budget_ms: _Optional[int] = ..., epoch_budget_ms: _Optional[int] = ..., metadata_budget_ms: _Optional[int] = ..., commit_budget_ms: _Optional[int] = ..., options: _Optional[_Union[Options, _Mapping]] = ..., log_id: _Optional[str] = ...) -> None: ...

class Options(_message.Message):
    __slots__ = ("observation_window", "report_retries_max", "retry_backoff_ms", "retry_backoff_mult", "reminder_steps", "reminder_steps_critical", "blend_mode_annotations", "blend_mode_default")
    OBSERVATION_WINDOW_FIELD_NUMBER: _ClassVar[int]
    REPORT_RETRIES_MAX_FIELD_NUMBER: _ClassVar[int]
    RETRY_BACKOFF_MS_FIELD_NUMBER: _ClassVar[int]
    RETRY_BACKOFF_MULT_FIELD_NUMBER: _ClassVar[int]
    REMINDER_STEPS_FIELD_NUMBER: _ClassVar[int]
    REMINDER_STEPS_CRITICAL_FIELD_NUMBER: _ClassVar[int]
    BLEND_MODE_ANNOTATIONS_FIELD_NUMBER: _ClassVar[int]
    BLEND_MODE_DEFAULT_FIELD_NUMBER: _ClassVar[int]
    observation_window: int
    report_retries_max: int
    retry_backoff_ms: float
    retry_backoff_mult: float
    reminder_steps: int
    reminder_steps_critical: int
    blend_mode_annotations: bool
    blend_mode_default: str
    def __init__(self, observation_window: _Optional[int] = ..., report_retries_max: _Optional[int] = ..., retry_backoff_ms: _Optional[float] = ..., retry_backoff_mult: _Optional[float] = ..., reminder_steps: _Optional[int] = ..., reminder_steps_critical: _Optional[int] = ..., blend_mode_annotations: _Optional[bool] = ..., blend_mode_default: _Optional[str] = ...) -> None: ...

class StepReceived(_message.Message):
    __slots__ = ("step_index", "event_time_ns", "received_unix_ns", "decision_id", "call", "budget_ms", "packet")
    STEP_INDEX_FIELD_NUMBER: _ClassVar[int]
    EVENT_TIME_NS_FIELD_NUMBER: _ClassVar[int]
    RECEIVED_UNIX_NS_FIELD_NUMBER: _ClassVar[int]
    DECISION_ID_FIELD_NUMBER: _ClassVar[int]
    CALL_FIELD_NUMBER: _ClassVar[int]
    BUDGET_MS_FIELD_NUMBER: _ClassVar[int]
    PACKET_FIELD_NUMBER: _ClassVar[int]
    step_index: int
    event_time_ns: int
    received_unix_ns: int
    decision_id: str
    call: str
    budget_ms: int
    packet: bytes
    def __init__(self, step_index: _Optional[int] = ..., event_time_ns: _Optional[int] = ..., received_unix_ns: _Optional[int] = ..., decision_id: _Optional[str] = ..., call: _Optional[str] = ..., budget_ms: _Optional[int] = ..., packet: _Optional[bytes] = ...) -> None: ...

class FeatureName(_message.Message):
    __slots__ = ("family", "feature")
    FAMILY_FIELD_NUMBER: _ClassVar[int]
    FEATURE_FIELD_NUMBER: _ClassVar[int]
    family: str
    feature: str
    def __init__(self, family: _Optional[str] = ..., feature: _Optional[str] = ...) -> None: ...

class GraphLayoutObserved(_message.Message):
    __slots__ = ("features", "node_types", "relations")
    FEATURES_FIELD_NUMBER: _ClassVar[int]
    NODE_TYPES_FIELD_NUMBER: _ClassVar[int]
    RELATIONS_FIELD_NUMBER: _ClassVar[int]
    features: _containers.RepeatedCompositeFieldContainer[FeatureName]
    node_types: _containers.RepeatedScalarFieldContainer[str]
    relations: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, features: _Optional[_Iterable[_Union[FeatureName, _Mapping]]] = ..., node_types: _Optional[_Iterable[str]] = ..., relations: _Optional[_Iterable[str]] = ...) -> None: ...

class NormInput(_message.Message):
    __slots__ = ("index", "value")
    INDEX_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    index: int
    value: float
    def __init__(self, index: _Optional[int] = ..., value: _Optional[float] = ...) -> None: ...

class BlueprintUse(_message.Message):
    __slots__ = ("blueprint_id", "digest")
    BLUEPRINT_ID_FIELD_NUMBER: _ClassVar[int]
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    blueprint_id: str
    digest: str
    def __init__(self, blueprint_id: _Optional[str] = ..., digest: _Optional[str] = ...) -> None: ...

class GraphObserved(_message.Message):
    __slots__ = ("step_lsn", "layout_lsn", "present", "total", "node_counts", "edge_counts", "norm_inputs", "norms_present", "norm_values", "blueprints", "ignored_inputs", "registry_overflow", "host_blueprint_id")
    STEP_LSN_FIELD_NUMBER: _ClassVar[int]
    LAYOUT_LSN_FIELD_NUMBER: _ClassVar[int]
    PRESENT_FIELD_NUMBER: _ClassVar[int]
    TOTAL_FIELD_NUMBER: _ClassVar[int]
    NODE_COUNTS_FIELD_NUMBER: _ClassVar[int]
    EDGE_COUNTS_FIELD_NUMBER: _ClassVar[int]
    NORM_INPUTS_FIELD_NUMBER: _ClassVar[int]
    NORMS_PRESENT_FIELD_NUMBER: _ClassVar[int]
    NORM_VALUES_FIELD_NUMBER: _ClassVar[int]
    BLUEPRINTS_FIELD_NUMBER: _ClassVar[int]
    IGNORED_INPUTS_FIELD_NUMBER: _ClassVar[int]
    REGISTRY_OVERFLOW_FIELD_NUMBER: _ClassVar[int]
    HOST_BLUEPRINT_ID_FIELD_NUMBER: _ClassVar[int]
    step_lsn: int
    layout_lsn: int
    present: _containers.RepeatedScalarFieldContainer[int]
    total: _containers.RepeatedScalarFieldContainer[int]
    node_counts: _containers.RepeatedScalarFieldContainer[int]
    edge_counts: _containers.RepeatedScalarFieldContainer[int]
    norm_inputs: _containers.RepeatedCompositeFieldContainer[NormInput]
    norms_present: int
    norm_values: _containers.RepeatedScalarFieldContainer[float]
    blueprints: _containers.RepeatedCompositeFieldContainer[BlueprintUse]
    ignored_inputs: int
    registry_overflow: int
    host_blueprint_id: str
    def __init__(self, step_lsn: _Optional[int] = ..., layout_lsn: _Optional[int] = ..., present: _Optional[_Iterable[int]] = ..., total: _Optional[_Iterable[int]] = ..., node_counts: _Optional[_Iterable[int]] = ..., edge_counts: _Optional[_Iterable[int]] = ..., norm_inputs: _Optional[_Iterable[_Union[NormInput, _Mapping]]] = ..., norms_present: _Optional[int] = ..., norm_values: _Optional[_Iterable[float]] = ..., blueprints: _Optional[_Iterable[_Union[BlueprintUse, _Mapping]]] = ..., ignored_inputs: _Optional[int] = ..., registry_overflow: _Optional[int] = ..., host_blueprint_id: _Optional[str] = ...) -> None: ...

class BlueprintObserved(_message.Message):
    __slots__ = ("blueprint_id", "digest", "event_time_ns", "content", "late")
    BLUEPRINT_ID_FIELD_NUMBER: _ClassVar[int]
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    EVENT_TIME_NS_FIELD_NUMBER: _ClassVar[int]
    CONTENT_FIELD_NUMBER: _ClassVar[int]
    LATE_FIELD_NUMBER: _ClassVar[int]
    blueprint_id: str
    digest: str
    event_time_ns: int
    content: bytes
    late: bool
    def __init__(self, blueprint_id: _Optional[str] = ..., digest: _Optional[str] = ..., event_time_ns: _Optional[int] = ..., content: _Optional[bytes] = ..., late: _Optional[bool] = ...) -> None: ...

class BlueprintContent(_message.Message):
    __slots__ = ("descriptor", "safety_sheet", "graph_metadata")
    DESCRIPTOR_FIELD_NUMBER: _ClassVar[int]
    SAFETY_SHEET_FIELD_NUMBER: _ClassVar[int]
    GRAPH_METADATA_FIELD_NUMBER: _ClassVar[int]
    descriptor: bytes
    safety_sheet: bytes
    graph_metadata: bytes
    def __init__(self, descriptor: _Optional[bytes] = ..., safety_sheet: _Optional[bytes] = ..., graph_metadata: _Optional[bytes] = ...) -> None: ...

class MetadataTimedOut(_message.Message):
    __slots__ = ("step_lsn", "blueprint_id", "budget_ms", "elapsed_ns")
    STEP_LSN_FIELD_NUMBER: _ClassVar[int]
    BLUEPRINT_ID_FIELD_NUMBER: _ClassVar[int]
    BUDGET_MS_FIELD_NUMBER: _ClassVar[int]
    ELAPSED_NS_FIELD_NUMBER: _ClassVar[int]
    step_lsn: int
    blueprint_id: str
    budget_ms: int
    elapsed_ns: int
    def __init__(self, step_lsn: _Optional[int] = ..., blueprint_id: _Optional[str] = ..., budget_ms: _Optional[int] = ..., elapsed_ns: _Optional[int] = ...) -> None: ...

class MetadataFailed(_message.Message):
    __slots__ = ("step_lsn", "blueprint_id", "error", "attempted")
    STEP_LSN_FIELD_NUMBER: _ClassVar[int]
    BLUEPRINT_ID_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    ATTEMPTED_FIELD_NUMBER: _ClassVar[int]
    step_lsn: int
    blueprint_id: str
    error: str
    attempted: bool
    def __init__(self, step_lsn: _Optional[int] = ..., blueprint_id: _Optional[str] = ..., error: _Optional[str] = ..., attempted: _Optional[bool] = ...) -> None: ...

class PolicyIdentity(_message.Message):
    __slots__ = ("version", "architecture", "engine", "checkpoint_digest", "compiled", "compile_fallbacks", "compile_warm_ms")
    VERSION_FIELD_NUMBER: _ClassVar[int]
    ARCHITECTURE_FIELD_NUMBER: _ClassVar[int]
    ENGINE_FIELD_NUMBER: _ClassVar[int]
    CHECKPOINT_DIGEST_FIELD_NUMBER: _ClassVar[int]
    COMPILED_FIELD_NUMBER: _ClassVar[int]
    COMPILE_FALLBACKS_FIELD_NUMBER: _ClassVar[int]
    COMPILE_WARM_MS_FIELD_NUMBER: _ClassVar[int]
    version: str
    architecture: str
    engine: str
    checkpoint_digest: str
    compiled: bool
    compile_fallbacks: int
    compile_warm_ms: float
    def __init__(self, version: _Optional[str] = ..., architecture: _Optional[str] = ..., engine: _Optional[str] = ..., checkpoint_digest: _Optional[str] = ..., compiled: _Optional[bool] = ..., compile_fallbacks: _Optional[int] = ..., compile_warm_ms: _Optional[float] = ...) -> None: ...

class InferenceObserved(_message.Message):
    __slots__ = ("step_lsn", "identity", "elapsed_ns", "action", "risk", "value", "param_deltas", "blending_method", "schedule", "seed_index", "seed_score", "blueprint_index", "breaker_scores")
    STEP_LSN_FIELD_NUMBER: _ClassVar[int]
    IDENTITY_FIELD_NUMBER: _ClassVar[int]
    ELAPSED_NS_FIELD_NUMBER: _ClassVar[int]
    ACTION_FIELD_NUMBER: _ClassVar[int]
    RISK_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    PARAM_DELTAS_FIELD_NUMBER: _ClassVar[int]
    BLENDING_METHOD_FIELD_NUMBER: _ClassVar[int]
    SCHEDULE_FIELD_NUMBER: _ClassVar[int]
    SEED_INDEX_FIELD_NUMBER: _ClassVar[int]
    SEED_SCORE_FIELD_NUMBER: _ClassVar[int]
    BLUEPRINT_INDEX_FIELD_NUMBER: _ClassVar[int]
    BREAKER_SCORES_FIELD_NUMBER: _ClassVar[int]
    step_lsn: int
    identity: PolicyIdentity
    elapsed_ns: int
    action: _containers.RepeatedScalarFieldContainer[float]
    risk: _containers.RepeatedScalarFieldContainer[float]
    value: float
    param_deltas: _containers.RepeatedScalarFieldContainer[float]
    blending_method: _containers.RepeatedScalarFieldContainer[float]
    schedule: _containers.RepeatedScalarFieldContainer[float]
    seed_index: int
    seed_score: float
    blueprint_index: int
    breaker_scores: _containers.RepeatedScalarFieldContainer[float]
    def __init__(self, step_lsn: _Optional[int] = ..., identity: _Optional[_Union[PolicyIdentity, _Mapping]] = ..., elapsed_ns: _Optional[int] = ..., action: _Optional[_Iterable[float]] = ..., risk: _Optional[_Iterable[float]] = ..., value: _Optional[float] = ..., param_deltas: _Optional[_Iterable[float]] = ..., blending_method: _Optional[_Iterable[float]] = ..., schedule: _Optional[_Iterable[float]] = ..., seed_index: _Optional[int] = ..., seed_score: _Optional[float] = ..., blueprint_index: _Optional[int] = ..., breaker_scores: _Optional[_Iterable[float]] = ...) -> None: ...

class InferenceTimedOut(_message.Message):
    __slots__ = ("step_lsn", "identity", "budget_ms", "elapsed_ns")
    STEP_LSN_FIELD_NUMBER: _ClassVar[int]
    IDENTITY_FIELD_NUMBER: _ClassVar[int]
    BUDGET_MS_FIELD_NUMBER: _ClassVar[int]
    ELAPSED_NS_FIELD_NUMBER: _ClassVar[int]
    step_lsn: int
    identity: PolicyIdentity
    budget_ms: int
    elapsed_ns: int
    def __init__(self, step_lsn: _Optional[int] = ..., identity: _Optional[_Union[PolicyIdentity, _Mapping]] = ..., budget_ms: _Optional[int] = ..., elapsed_ns: _Optional[int] = ...) -> None: ...

class InferenceFailed(_message.Message):
    __slots__ = ("step_lsn", "identity", "error", "elapsed_ns", "attempted")
    STEP_LSN_FIELD_NUMBER: _ClassVar[int]
    IDENTITY_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    ELAPSED_NS_FIELD_NUMBER: _ClassVar[int]
    ATTEMPTED_FIELD_NUMBER: _ClassVar[int]
    step_lsn: int
    identity: PolicyIdentity
    error: str
    elapsed_ns: int
    attempted: bool
    def __init__(self, step_lsn: _Optional[int] = ..., identity: _Optional[_Union[PolicyIdentity, _Mapping]] = ..., error: _Optional[str] = ..., elapsed_ns: _Optional[int] = ..., attempted: _Optional[bool] = ...) -> None: ...

class InferenceSkipped(_message.Message):
    __slots__ = ("step_lsn", "identity", "cause")
    STEP_LSN_FIELD_NUMBER: _ClassVar[int]
    IDENTITY_FIELD_NUMBER: _ClassVar[int]
    CAUSE_FIELD_NUMBER: _ClassVar[int]
    step_lsn: int
    identity: PolicyIdentity
    cause: str
    def __init__(self, step_lsn: _Optional[int] = ..., identity: _Optional[_Union[PolicyIdentity, _Mapping]] = ..., cause: _Optional[str] = ...) -> None: ...

class RegistryAssigned(_message.Message):
    __slots__ = ("kind", "keys", "first_index")
    KIND_FIELD_NUMBER: _ClassVar[int]
    KEYS_FIELD_NUMBER: _ClassVar[int]
    FIRST_INDEX_FIELD_NUMBER: _ClassVar[int]
    kind: str
    keys: _containers.RepeatedScalarFieldContainer[str]
    first_index: int
    def __init__(self, kind: _Optional[str] = ..., keys: _Optional[_Iterable[str]] = ..., first_index: _Optional[int] = ...) -> None: ...

class TriggeredRow(_message.Message):
    __slots__ = ("reason", "level", "priority", "effect", "readings")
    REASON_FIELD_NUMBER: _ClassVar[int]
    LEVEL_FIELD_NUMBER: _ClassVar[int]
    PRIORITY_FIELD_NUMBER: _ClassVar[int]
    EFFECT_FIELD_NUMBER: _ClassVar[int]
    READINGS_FIELD_NUMBER: _ClassVar[int]
    reason: str
    level: int
    priority: int
    effect: str
    readings: _containers.RepeatedCompositeFieldContainer[SignalReading]
    def __init__(self, reason: _Optional[str] = ..., level: _Optional[int] = ..., priority: _Optional[int] = ..., effect: _Optional[str] = ..., readings: _Optional[_Iterable[_Union[SignalReading, _Mapping]]] = ...) -> None: ...

class SignalReading(_message.Message):
    __slots__ = ("signal", "value", "comparison", "threshold")
    SIGNAL_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    COMPARISON_FIELD_NUMBER: _ClassVar[int]
    THRESHOLD_FIELD_NUMBER: _ClassVar[int]
    signal: str
    value: float
    comparison: str
    threshold: float
    def __init__(self, signal: _Optional[str] = ..., value: _Optional[float] = ..., comparison: _Optional[str] = ..., threshold: _Optional[float] = ...) -> None: ...

class BreakerOutcome(_message.Message):
    __slots__ = ("breaker", "succeeded")
    BREAKER_FIELD_NUMBER: _ClassVar[int]
    SUCCEEDED_FIELD_NUMBER: _ClassVar[int]
    breaker: str
    succeeded: bool
    def __init__(self, breaker: _Optional[str] = ..., succeeded: _Optional[bool] = ...) -> None: ...

class StageTimings(_message.Message):
    __slots__ = ("receive_ns", "blueprints_ns", "graph_ns", "inference_ns")
    RECEIVE_NS_FIELD_NUMBER: _ClassVar[int]
    BLUEPRINTS_NS_FIELD_NUMBER: _ClassVar[int]
    GRAPH_NS_FIELD_NUMBER: _ClassVar[int]
    INFERENCE_NS_FIELD_NUMBER: _ClassVar[int]
    receive_ns: int
    blueprints_ns: int
    graph_ns: int
    inference_ns: int
    def __init__(self, receive_ns: _Optional[int] = ..., blueprints_ns: _Optional[int] = ..., graph_ns: _Optional[int] = ..., inference_ns: _Optional[int] = ...) -> None: ...

class DecisionMade(_message.Message):
    __slots__ = ("step_lsn", "event_time_ns", "command", "risk_reason", "rows", "outcomes", "timings", "clean", "training_run_id", "has_validation_loss", "validation_loss", "germinated_seed_id", "germinated_blueprint_id", "blueprint_digest", "command_id", "loss_delta", "critical", "has_hook_latency", "hook_latency_ms", "edges", "window")
    STEP_LSN_FIELD_NUMBER: _ClassVar[int]
    EVENT_TIME_NS_FIELD_NUMBER: _ClassVar[int]
    COMMAND_FIELD_NUMBER: _ClassVar[int]
    RISK_REASON_FIELD_NUMBER: _ClassVar[int]
    ROWS_FIELD_NUMBER: _ClassVar[int]
    OUTCOMES_FIELD_NUMBER: _ClassVar[int]
    TIMINGS_FIELD_NUMBER: _ClassVar[int]
    CLEAN_FIELD_NUMBER: _ClassVar[int]
    TRAINING_RUN_ID_FIELD_NUMBER: _ClassVar[int]
    HAS_VALIDATION_LOSS_FIELD_NUMBER: _ClassVar[int]
    VALIDATION_LOSS_FIELD_NUMBER: _ClassVar[int]
    GERMINATED_SEED_ID_FIELD_NUMBER: _ClassVar[int]
    GERMINATED_BLUEPRINT_ID_FIELD_NUMBER: _ClassVar[int]
    BLUEPRINT_DIGEST_FIELD_NUMBER: _ClassVar[int]
    COMMAND_ID_FIELD_NUMBER: _ClassVar[int]
    LOSS_DELTA_FIELD_NUMBER: _ClassVar[int]
    CRITICAL_FIELD_NUMBER: _ClassVar[int]
    HAS_HOOK_LATENCY_FIELD_NUMBER: _ClassVar[int]
    HOOK_LATENCY_MS_FIELD_NUMBER: _ClassVar[int]
    EDGES_FIELD_NUMBER: _ClassVar[int]
    WINDOW_FIELD_NUMBER: _ClassVar[int]
    step_lsn: int
    event_time_ns: int
    command: bytes
    risk_reason: str
    rows: _containers.RepeatedCompositeFieldContainer[TriggeredRow]
    outcomes: _containers.RepeatedCompositeFieldContainer[BreakerOutcome]
    timings: StageTimings
    clean: bool
    training_run_id: str
    has_validation_loss: bool
    validation_loss: float
    germinated_seed_id: str
    germinated_blueprint_id: str
    blueprint_digest: str
    command_id: str
    loss_delta: float
    critical: bool
    has_hook_latency: bool
    hook_latency_ms: float
    edges: _containers.RepeatedCompositeFieldContainer[ConditionEdge]
    window: WindowOpened
    def __init__(self, step_lsn: _Optional[int] = ..., event_time_ns: _Optional[int] = ..., command: _Optional[bytes] = ..., risk_reason: _Optional[str] = ..., rows: _Optional[_Iterable[_Union[TriggeredRow, _Mapping]]] = ..., outcomes: _Optional[_Iterable[_Union[BreakerOutcome, _Mapping]]] = ..., timings: _Optional[_Union[StageTimings, _Mapping]] = ..., clean: _Optional[bool] = ..., training_run_id: _Optional[str] = ..., has_validation_loss: _Optional[bool] = ..., validation_loss: _Optional[float] = ..., germinated_seed_id: _Optional[str] = ..., germinated_blueprint_id: _Optional[str] = ..., blueprint_digest: _Optional[str] = ..., command_id: _Optional[str] = ..., loss_delta: _Optional[float] = ..., critical: _Optional[bool] = ..., has_hook_latency: _Optional[bool] = ..., hook_latency_ms: _Optional[float] = ..., edges: _Optional[_Iterable[_Union[ConditionEdge, _Mapping]]] = ..., window: _Optional[_Union[WindowOpened, _Mapping]] = ...) -> None: ...

class ConditionEdge(_message.Message):
    __slots__ = ("reason", "level", "priority", "edge", "since_step_index", "step_index")
    REASON_FIELD_NUMBER: _ClassVar[int]
    LEVEL_FIELD_NUMBER: _ClassVar[int]
    PRIORITY_FIELD_NUMBER: _ClassVar[int]
    EDGE_FIELD_NUMBER: _ClassVar[int]
    SINCE_STEP_INDEX_FIELD_NUMBER: _ClassVar[int]
    STEP_INDEX_FIELD_NUMBER: _ClassVar[int]
    reason: str
    level: int
    priority: int
    edge: str
    since_step_index: int
    step_index: int
    def __init__(self, reason: _Optional[str] = ..., level: _Optional[int] = ..., priority: _Optional[int] = ..., edge: _Optional[str] = ..., since_step_index: _Optional[int] = ..., step_index: _Optional[int] = ...) -> None: ...

class WindowOpened(_message.Message):
    __slots__ = ("length", "start_epoch", "training_run_id", "seed_id", "blueprint_id", "policy_version")
    LENGTH_FIELD_NUMBER: _ClassVar[int]
    START_EPOCH_FIELD_NUMBER: _ClassVar[int]
    TRAINING_RUN_ID_FIELD_NUMBER: _ClassVar[int]
    SEED_ID_FIELD_NUMBER: _ClassVar[int]
    BLUEPRINT_ID_FIELD_NUMBER: _ClassVar[int]
    POLICY_VERSION_FIELD_NUMBER: _ClassVar[int]
    length: int
    start_epoch: int
    training_run_id: str
    seed_id: str
    blueprint_id: str
    policy_version: str
    def __init__(self, length: _Optional[int] = ..., start_epoch: _Optional[int] = ..., training_run_id: _Optional[str] = ..., seed_id: _Optional[str] = ..., blueprint_id: _Optional[str] = ..., policy_version: _Optional[str] = ...) -> None: ...

class WindowClosed(_message.Message):
    __slots__ = ("step_lsn", "command_id", "outcome", "observed", "expired")
    STEP_LSN_FIELD_NUMBER: _ClassVar[int]
    COMMAND_ID_FIELD_NUMBER: _ClassVar[int]
    OUTCOME_FIELD_NUMBER: _ClassVar[int]
    OBSERVED_FIELD_NUMBER: _ClassVar[int]
    EXPIRED_FIELD_NUMBER: _ClassVar[int]
    step_lsn: int
    command_id: str
    outcome: int
    observed: int
    expired: bool
    def __init__(self, step_lsn: _Optional[int] = ..., command_id: _Optional[str] = ..., outcome: _Optional[int] = ..., observed: _Optional[int] = ..., expired: _Optional[bool] = ...) -> None: ...

class BreakerMoved(_message.Message):
    __slots__ = ("breaker", "from_state", "to_state", "event_time_ns", "cause", "step_lsn")
    BREAKER_FIELD_NUMBER: _ClassVar[int]
    FROM_STATE_FIELD_NUMBER: _ClassVar[int]
    TO_STATE_FIELD_NUMBER: _ClassVar[int]
    EVENT_TIME_NS_FIELD_NUMBER: _ClassVar[int]
    CAUSE_FIELD_NUMBER: _ClassVar[int]
    STEP_LSN_FIELD_NUMBER: _ClassVar[int]
    breaker: str
    from_state: int
    to_state: int
    event_time_ns: int
    cause: str
    step_lsn: int
    def __init__(self, breaker: _Optional[str] = ..., from_state: _Optional[int] = ..., to_state: _Optional[int] = ..., event_time_ns: _Optional[int] = ..., cause: _Optional[str] = ..., step_lsn: _Optional[int] = ...) -> None: ...

class ConservativeModeChanged(_message.Message):
    __slots__ = ("active", "reason", "event_time_ns", "step_lsn")
    ACTIVE_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    EVENT_TIME_NS_FIELD_NUMBER: _ClassVar[int]
    STEP_LSN_FIELD_NUMBER: _ClassVar[int]
    active: bool
    reason: str
    event_time_ns: int
    step_lsn: int
    def __init__(self, active: _Optional[bool] = ..., reason: _Optional[str] = ..., event_time_ns: _Optional[int] = ..., step_lsn: _Optional[int] = ...) -> None: ...

class FieldReportIssued(_message.Message):
    __slots__ = ("step_lsn", "report", "synthesised")
    STEP_LSN_FIELD_NUMBER: _ClassVar[int]
    REPORT_FIELD_NUMBER: _ClassVar[int]
    SYNTHESISED_FIELD_NUMBER: _ClassVar[int]
    step_lsn: int
    report: bytes
    synthesised: bool
    def __init__(self, step_lsn: _Optional[int] = ..., report: _Optional[bytes] = ..., synthesised: _Optional[bool] = ...) -> None: ...

class CommitLate(_message.Message):
    __slots__ = ("decision_lsn", "step_lsn", "released_command_id", "cause", "event_time_ns", "edges")
    DECISION_LSN_FIELD_NUMBER: _ClassVar[int]
    STEP_LSN_FIELD_NUMBER: _ClassVar[int]
    RELEASED_COMMAND_ID_FIELD_NUMBER: _ClassVar[int]
    CAUSE_FIELD_NUMBER: _ClassVar[int]
    EVENT_TIME_NS_FIELD_NUMBER: _ClassVar[int]
    EDGES_FIELD_NUMBER: _ClassVar[int]
    decision_lsn: int
    step_lsn: int
    released_command_id: str
    cause: str
    event_time_ns: int
    edges: _containers.RepeatedCompositeFieldContainer[ConditionEdge]
    def __init__(self, decision_lsn: _Optional[int] = ..., step_lsn: _Optional[int] = ..., released_command_id: _Optional[str] = ..., cause: _Optional[str] = ..., event_time_ns: _Optional[int] = ..., edges: _Optional[_Iterable[_Union[ConditionEdge, _Mapping]]] = ...) -> None: ...

class StepPaused(_message.Message):
    __slots__ = ("step_lsn", "released_command_id", "cause", "event_time_ns", "edges")
    STEP_LSN_FIELD_NUMBER: _ClassVar[int]
    RELEASED_COMMAND_ID_FIELD_NUMBER: _ClassVar[int]
    CAUSE_FIELD_NUMBER: _ClassVar[int]
    EVENT_TIME_NS_FIELD_NUMBER: _ClassVar[int]
    EDGES_FIELD_NUMBER: _ClassVar[int]
    step_lsn: int
    released_command_id: str
    cause: str
    event_time_ns: int
    edges: _containers.RepeatedCompositeFieldContainer[ConditionEdge]
    def __init__(self, step_lsn: _Optional[int] = ..., released_command_id: _Optional[str] = ..., cause: _Optional[str] = ..., event_time_ns: _Optional[int] = ..., edges: _Optional[_Iterable[_Union[ConditionEdge, _Mapping]]] = ...) -> None: ...

class StepsUnrecorded(_message.Message):
    __slots__ = ("first_step_index", "last_step_index", "count", "event_time_ns", "cause", "timed_out")
    FIRST_STEP_INDEX_FIELD_NUMBER: _ClassVar[int]
    LAST_STEP_INDEX_FIELD_NUMBER: _ClassVar[int]
    COUNT_FIELD_NUMBER: _ClassVar[int]
    EVENT_TIME_NS_FIELD_NUMBER: _ClassVar[int]
    CAUSE_FIELD_NUMBER: _ClassVar[int]
    TIMED_OUT_FIELD_NUMBER: _ClassVar[int]
    first_step_index: int
    last_step_index: int
    count: int
    event_time_ns: int
    cause: str
    timed_out: int
    def __init__(self, first_step_index: _Optional[int] = ..., last_step_index: _Optional[int] = ..., count: _Optional[int] = ..., event_time_ns: _Optional[int] = ..., cause: _Optional[str] = ..., timed_out: _Optional[int] = ...) -> None: ...

class OperatorDirected(_message.Message):
    __slots__ = ("directive", "operator", "reason", "event_time_ns", "request_id")
    DIRECTIVE_FIELD_NUMBER: _ClassVar[int]
    OPERATOR_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    EVENT_TIME_NS_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    directive: str
    operator: str
    reason: str
    event_time_ns: int
    request_id: str
    def __init__(self, directive: _Optional[str] = ..., operator: _Optional[str] = ..., reason: _Optional[str] = ..., event_time_ns: _Optional[int] = ..., request_id: _Optional[str] = ...) -> None: ...

class CommandDelivered(_message.Message):
    __slots__ = ("command_id", "outcome", "detail", "event_time_ns")
    COMMAND_ID_FIELD_NUMBER: _ClassVar[int]
    OUTCOME_FIELD_NUMBER: _ClassVar[int]
    DETAIL_FIELD_NUMBER: _ClassVar[int]
    EVENT_TIME_NS_FIELD_NUMBER: _ClassVar[int]
    command_id: str
    outcome: str
    detail: str
    event_time_ns: int
    def __init__(self, command_id: _Optional[str] = ..., outcome: _Optional[str] = ..., detail: _Optional[str] = ..., event_time_ns: _Optional[int] = ...) -> None: ...

class PublishAttempted(_message.Message):
    __slots__ = ("report_lsns", "report_ids", "attempt", "succeeded", "cause", "event_time_ns")
    REPORT_LSNS_FIELD_NUMBER: _ClassVar[int]
    REPORT_IDS_FIELD_NUMBER: _ClassVar[int]
    ATTEMPT_FIELD_NUMBER: _ClassVar[int]
    SUCCEEDED_FIELD_NUMBER: _ClassVar[int]
    CAUSE_FIELD_NUMBER: _ClassVar[int]
    EVENT_TIME_NS_FIELD_NUMBER: _ClassVar[int]
    report_lsns: _containers.RepeatedScalarFieldContainer[int]
    report_ids: _containers.RepeatedScalarFieldContainer[str]
    attempt: int
    succeeded: bool
    cause: str
    event_time_ns: int
    def __init__(self, report_lsns: _Optional[_Iterable[int]] = ..., report_ids: _Optional[_Iterable[str]] = ..., attempt: _Optional[int] = ..., succeeded: _Optional[bool] = ..., cause: _Optional[str] = ..., event_time_ns: _Optional[int] = ...) -> None: ...

class FieldReportsDropped(_message.Message):
    __slots__ = ("report_lsns", "report_ids", "attempts", "cause", "event_time_ns")
    REPORT_LSNS_FIELD_NUMBER: _ClassVar[int]
    REPORT_IDS_FIELD_NUMBER: _ClassVar[int]
    ATTEMPTS_FIELD_NUMBER: _ClassVar[int]
    CAUSE_FIELD_NUMBER: _ClassVar[int]
    EVENT_TIME_NS_FIELD_NUMBER: _ClassVar[int]
    report_lsns: _containers.RepeatedScalarFieldContainer[int]
    report_ids: _containers.RepeatedScalarFieldContainer[str]
    attempts: int
    cause: str
    event_time_ns: int
    def __init__(self, report_lsns: _Optional[_Iterable[int]] = ..., report_ids: _Optional[_Iterable[str]] = ..., attempts: _Optional[int] = ..., cause: _Optional[str] = ..., event_time_ns: _Optional[int] = ...) -> None: ...

class TelemetryDrained(_message.Message):
    __slots__ = ("through_lsn", "packets", "event_time_ns")
    THROUGH_LSN_FIELD_NUMBER: _ClassVar[int]
    PACKETS_FIELD_NUMBER: _ClassVar[int]
    EVENT_TIME_NS_FIELD_NUMBER: _ClassVar[int]
    through_lsn: int
    packets: int
    event_time_ns: int
    def __init__(self, through_lsn: _Optional[int] = ..., packets: _Optional[int] = ..., event_time_ns: _Optional[int] = ...) -> None: ...

class TelemetryDropped(_message.Message):
    __slots__ = ("packet_id", "attempts", "cause", "event_time_ns")
    PACKET_ID_FIELD_NUMBER: _ClassVar[int]
    ATTEMPTS_FIELD_NUMBER: _ClassVar[int]
    CAUSE_FIELD_NUMBER: _ClassVar[int]
    EVENT_TIME_NS_FIELD_NUMBER: _ClassVar[int]
    packet_id: str
    attempts: int
    cause: str
    event_time_ns: int
    def __init__(self, packet_id: _Optional[str] = ..., attempts: _Optional[int] = ..., cause: _Optional[str] = ..., event_time_ns: _Optional[int] = ...) -> None: ...

class StateBase(_message.Message):
    __slots__ = ("at_lsn", "digest", "needs_lsn", "state", "contents", "event_time_ns")
    AT_LSN_FIELD_NUMBER: _ClassVar[int]
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    NEEDS_LSN_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    CONTENTS_FIELD_NUMBER: _ClassVar[int]
    EVENT_TIME_NS_FIELD_NUMBER: _ClassVar[int]
    at_lsn: int
    digest: str
    needs_lsn: int
    state: BaseState
    contents: _containers.RepeatedCompositeFieldContainer[KeptContent]
    event_time_ns: int
    def __init__(self, at_lsn: _Optional[int] = ..., digest: _Optional[str] = ..., needs_lsn: _Optional[int] = ..., state: _Optional[_Union[BaseState, _Mapping]] = ..., contents: _Optional[_Iterable[_Union[KeptContent, _Mapping]]] = ..., event_time_ns: _Optional[int] = ...) -> None: ...

class KeptContent(_message.Message):
    __slots__ = ("digest", "content")
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    CONTENT_FIELD_NUMBER: _ClassVar[int]
    digest: str
    content: bytes
    def __init__(self, digest: _Optional[str] = ..., content: _Optional[bytes] = ...) -> None: ...

class BaseState(_message.Message):
    __slots__ = ("last_lsn", "event_time_ns", "thresholds", "options", "log_id", "metadata_budget_ms", "behaviour_flags", "policy_version", "steps_received", "steps_unrecorded", "decisions", "commits_late", "unsettled", "unsettled_report_lsn", "undecided", "loss", "norms", "breakers", "conservative", "conditions", "windows", "reports_issued", "outbox", "undelivered", "deliveries", "directives", "registries", "layouts", "blueprints", "seed_blueprints", "policies")
    class ThresholdsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: float
        def __init__(self, key: _Optional[str] = ..., value: _Optional[float] = ...) -> None: ...
    LAST_LSN_FIELD_NUMBER: _ClassVar[int]
    EVENT_TIME_NS_FIELD_NUMBER: _ClassVar[int]
    THRESHOLDS_FIELD_NUMBER: _ClassVar[int]
    OPTIONS_FIELD_NUMBER: _ClassVar[int]
    LOG_ID_FIELD_NUMBER: _ClassVar[int]
    METADATA_BUDGET_MS_FIELD_NUMBER: _ClassVar[int]
    BEHAVIOUR_FLAGS_FIELD_NUMBER: _ClassVar[int]
    POLICY_VERSION_FIELD_NUMBER: _ClassVar[int]
    STEPS_RECEIVED_FIELD_NUMBER: _ClassVar[int]
    STEPS_UNRECORDED_FIELD_NUMBER: _ClassVar[int]
    DECISIONS_FIELD_NUMBER: _ClassVar[int]
    COMMITS_LATE_FIELD_NUMBER: _ClassVar[int]
    UNSETTLED_FIELD_NUMBER: _ClassVar[int]
    UNSETTLED_REPORT_LSN_FIELD_NUMBER: _ClassVar[int]
    UNDECIDED_FIELD_NUMBER: _ClassVar[int]
    LOSS_FIELD_NUMBER: _ClassVar[int]
    NORMS_FIELD_NUMBER: _ClassVar[int]
    BREAKERS_FIELD_NUMBER: _ClassVar[int]
    CONSERVATIVE_FIELD_NUMBER: _ClassVar[int]
    CONDITIONS_FIELD_NUMBER: _ClassVar[int]
    WINDOWS_FIELD_NUMBER: _ClassVar[int]
    REPORTS_ISSUED_FIELD_NUMBER: _ClassVar[int]
    OUTBOX_FIELD_NUMBER: _ClassVar[int]
    UNDELIVERED_FIELD_NUMBER: _ClassVar[int]
    DELIVERIES_FIELD_NUMBER: _ClassVar[int]
    DIRECTIVES_FIELD_NUMBER: _ClassVar[int]
    REGISTRIES_FIELD_NUMBER: _ClassVar[int]
    LAYOUTS_FIELD_NUMBER: _ClassVar[int]
    BLUEPRINTS_FIELD_NUMBER: _ClassVar[int]
    SEED_BLUEPRINTS_FIELD_NUMBER: _ClassVar[int]
    POLICIES_FIELD_NUMBER: _ClassVar[int]
    last_lsn: int
    event_time_ns: int
    thresholds: _containers.ScalarMap[str, float]
    options: Options
    log_id: str
    metadata_budget_ms: int
    behaviour_flags: _containers.RepeatedScalarFieldContainer[str]
    policy_version: str
    steps_received: int
    steps_unrecorded: int
    decisions: int
    commits_late: int
    unsettled: BaseUnsettled
    unsettled_report_lsn: int
    undecided: _containers.RepeatedScalarFieldContainer[int]
    loss: BaseLoss
    norms: _containers.RepeatedCompositeFieldContainer[BaseNorm]
    breakers: _containers.RepeatedCompositeFieldContainer[BaseBreaker]
    conservative: BaseConservative
    conditions: _containers.RepeatedCompositeFieldContainer[BaseCondition]
    windows: BaseWindows
    reports_issued: int
    outbox: BaseOutbox
    undelivered: _containers.RepeatedCompositeFieldContainer[BaseUndelivered]
    deliveries: BaseDeliveries
    directives: _containers.RepeatedScalarFieldContainer[str]
    registries: _containers.RepeatedCompositeFieldContainer[BaseRegistry]
    layouts: _containers.RepeatedCompositeFieldContainer[BaseLayout]
    blueprints: _containers.RepeatedCompositeFieldContainer[BaseBlueprint]
    seed_blueprints: _containers.RepeatedCompositeFieldContainer[BaseSeed]
    policies: BasePolicies
    def __init__(self, last_lsn: _Optional[int] = ..., event_time_ns: _Optional[int] = ..., thresholds: _Optional[_Mapping[str, float]] = ..., options: _Optional[_Union[Options, _Mapping]] = ..., log_id: _Optional[str] = ..., metadata_budget_ms: _Optional[int] = ..., behaviour_flags: _Optional[_Iterable[str]] = ..., policy_version: _Optional[str] = ..., steps_received: _Optional[int] = ..., steps_unrecorded: _Optional[int] = ..., decisions: _Optional[int] = ..., commits_late: _Optional[int] = ..., unsettled: _Optional[_Union[BaseUnsettled, _Mapping]] = ..., unsettled_report_lsn: _Optional[int] = ..., undecided: _Optional[_Iterable[int]] = ..., loss: _Optional[_Union[BaseLoss, _Mapping]] = ..., norms: _Optional[_Iterable[_Union[BaseNorm, _Mapping]]] = ..., breakers: _Optional[_Iterable[_Union[BaseBreaker, _Mapping]]] = ..., conservative: _Optional[_Union[BaseConservative, _Mapping]] = ..., conditions: _Optional[_Iterable[_Union[BaseCondition, _Mapping]]] = ..., windows: _Optional[_Union[BaseWindows, _Mapping]] = ..., reports_issued: _Optional[int] = ..., outbox: _Optional[_Union[BaseOutbox, _Mapping]] = ..., undelivered: _Optional[_Iterable[_Union[BaseUndelivered, _Mapping]]] = ..., deliveries: _Optional[_Union[BaseDeliveries, _Mapping]] = ..., directives: _Optional[_Iterable[str]] = ..., registries: _Optional[_Iterable[_Union[BaseRegistry, _Mapping]]] = ..., layouts: _Optional[_Iterable[_Union[BaseLayout, _Mapping]]] = ..., blueprints: _Optional[_Iterable[_Union[BaseBlueprint, _Mapping]]] = ..., seed_blueprints: _Optional[_Iterable[_Union[BaseSeed, _Mapping]]] = ..., policies: _Optional[_Union[BasePolicies, _Mapping]] = ...) -> None: ...

class BaseUnsettled(_message.Message):
    __slots__ = ("step_lsn", "seed_id", "blueprint_id", "command_id")
    STEP_LSN_FIELD_NUMBER: _ClassVar[int]
    SEED_ID_FIELD_NUMBER: _ClassVar[int]
    BLUEPRINT_ID_FIELD_NUMBER: _ClassVar[int]
    COMMAND_ID_FIELD_NUMBER: _ClassVar[int]
    step_lsn: int
    seed_id: str
    blueprint_id: str
    command_id: str
    def __init__(self, step_lsn: _Optional[int] = ..., seed_id: _Optional[str] = ..., blueprint_id: _Optional[str] = ..., command_id: _Optional[str] = ...) -> None: ...

class BaseLoss(_message.Message):
    __slots__ = ("training_run_id", "previous", "last")
    TRAINING_RUN_ID_FIELD_NUMBER: _ClassVar[int]
    PREVIOUS_FIELD_NUMBER: _ClassVar[int]
    LAST_FIELD_NUMBER: _ClassVar[int]
    training_run_id: str
    previous: float
    last: float
    def __init__(self, training_run_id: _Optional[str] = ..., previous: _Optional[float] = ..., last: _Optional[float] = ...) -> None: ...

class BaseNorm(_message.Message):
    __slots__ = ("mean", "variance")
    MEAN_FIELD_NUMBER: _ClassVar[int]
    VARIANCE_FIELD_NUMBER: _ClassVar[int]
    mean: float
    variance: float
    def __init__(self, mean: _Optional[float] = ..., variance: _Optional[float] = ...) -> None: ...

class BaseBreaker(_message.Message):
    __slots__ = ("name", "state", "failures", "successes", "moved_at_ns")
    NAME_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    FAILURES_FIELD_NUMBER: _ClassVar[int]
    SUCCESSES_FIELD_NUMBER: _ClassVar[int]
    MOVED_AT_NS_FIELD_NUMBER: _ClassVar[int]
    name: str
    state: int
    failures: int
    successes: int
    moved_at_ns: int
    def __init__(self, name: _Optional[str] = ..., state: _Optional[int] = ..., failures: _Optional[int] = ..., successes: _Optional[int] = ..., moved_at_ns: _Optional[int] = ...) -> None: ...

class BaseConservative(_message.Message):
    __slots__ = ("active", "reason", "since_ns", "clean_steps", "operator")
    ACTIVE_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    SINCE_NS_FIELD_NUMBER: _ClassVar[int]
    CLEAN_STEPS_FIELD_NUMBER: _ClassVar[int]
    OPERATOR_FIELD_NUMBER: _ClassVar[int]
    active: bool
    reason: str
    since_ns: int
    clean_steps: int
    operator: str
    def __init__(self, active: _Optional[bool] = ..., reason: _Optional[str] = ..., since_ns: _Optional[int] = ..., clean_steps: _Optional[int] = ..., operator: _Optional[str] = ...) -> None: ...

class BaseCondition(_message.Message):
    __slots__ = ("reason", "level", "since_step_index", "shown_step_index")
    REASON_FIELD_NUMBER: _ClassVar[int]
    LEVEL_FIELD_NUMBER: _ClassVar[int]
    SINCE_STEP_INDEX_FIELD_NUMBER: _ClassVar[int]
    SHOWN_STEP_INDEX_FIELD_NUMBER: _ClassVar[int]
    reason: str
    level: int
    since_step_index: int
    shown_step_index: int
    def __init__(self, reason: _Optional[str] = ..., level: _Optional[int] = ..., since_step_index: _Optional[int] = ..., shown_step_index: _Optional[int] = ...) -> None: ...

class BaseWindow(_message.Message):
    __slots__ = ("command_id", "opened_at", "length", "start_epoch", "training_run_id", "seed_id", "blueprint_id", "policy_version")
    COMMAND_ID_FIELD_NUMBER: _ClassVar[int]
    OPENED_AT_FIELD_NUMBER: _ClassVar[int]
    LENGTH_FIELD_NUMBER: _ClassVar[int]
    START_EPOCH_FIELD_NUMBER: _ClassVar[int]
    TRAINING_RUN_ID_FIELD_NUMBER: _ClassVar[int]
    SEED_ID_FIELD_NUMBER: _ClassVar[int]
    BLUEPRINT_ID_FIELD_NUMBER: _ClassVar[int]
    POLICY_VERSION_FIELD_NUMBER: _ClassVar[int]
    command_id: str
    opened_at: int
    length: int
    start_epoch: int
    training_run_id: str
    seed_id: str
    blueprint_id: str
    policy_version: str
    def __init__(self, command_id: _Optional[str] = ..., opened_at: _Optional[int] = ..., length: _Optional[int] = ..., start_epoch: _Optional[int] = ..., training_run_id: _Optional[str] = ..., seed_id: _Optional[str] = ..., blueprint_id: _Optional[str] = ..., policy_version: _Optional[str] = ...) -> None: ...

class BaseSample(_message.Message):
    __slots__ = ("decision", "loss_delta", "hook_latency_ms", "critical")
    DECISION_FIELD_NUMBER: _ClassVar[int]
    LOSS_DELTA_FIELD_NUMBER: _ClassVar[int]
    HOOK_LATENCY_MS_FIELD_NUMBER: _ClassVar[int]
    CRITICAL_FIELD_NUMBER: _ClassVar[int]
    decision: int
    loss_delta: float
    hook_latency_ms: float
    critical: bool
    def __init__(self, decision: _Optional[int] = ..., loss_delta: _Optional[float] = ..., hook_latency_ms: _Optional[float] = ..., critical: _Optional[bool] = ...) -> None: ...

class BaseWindows(_message.Message):
    __slots__ = ("open", "samples", "expired")
    OPEN_FIELD_NUMBER: _ClassVar[int]
    SAMPLES_FIELD_NUMBER: _ClassVar[int]
    EXPIRED_FIELD_NUMBER: _ClassVar[int]
    open: _containers.RepeatedCompositeFieldContainer[BaseWindow]
    samples: _containers.RepeatedCompositeFieldContainer[BaseSample]
    expired: int
    def __init__(self, open: _Optional[_Iterable[_Union[BaseWindow, _Mapping]]] = ..., samples: _Optional[_Iterable[_Union[BaseSample, _Mapping]]] = ..., expired: _Optional[int] = ...) -> None: ...

class BaseRetry(_message.Message):
    __slots__ = ("report_id", "report_lsn", "attempts", "due_ns")
    REPORT_ID_FIELD_NUMBER: _ClassVar[int]
    REPORT_LSN_FIELD_NUMBER: _ClassVar[int]
    ATTEMPTS_FIELD_NUMBER: _ClassVar[int]
    DUE_NS_FIELD_NUMBER: _ClassVar[int]
    report_id: str
    report_lsn: int
    attempts: int
    due_ns: int
    def __init__(self, report_id: _Optional[str] = ..., report_lsn: _Optional[int] = ..., attempts: _Optional[int] = ..., due_ns: _Optional[int] = ...) -> None: ...

class BaseOutbox(_message.Message):
    __slots__ = ("telemetry_lsn", "reports_lsn", "retries", "published", "retried", "dropped", "superseded", "telemetry_dropped")
    TELEMETRY_LSN_FIELD_NUMBER: _ClassVar[int]
    REPORTS_LSN_FIELD_NUMBER: _ClassVar[int]
    RETRIES_FIELD_NUMBER: _ClassVar[int]
    PUBLISHED_FIELD_NUMBER: _ClassVar[int]
    RETRIED_FIELD_NUMBER: _ClassVar[int]
    DROPPED_FIELD_NUMBER: _ClassVar[int]
    SUPERSEDED_FIELD_NUMBER: _ClassVar[int]
    TELEMETRY_DROPPED_FIELD_NUMBER: _ClassVar[int]
    telemetry_lsn: int
    reports_lsn: int
    retries: _containers.RepeatedCompositeFieldContainer[BaseRetry]
    published: int
    retried: int
    dropped: int
    superseded: int
    telemetry_dropped: int
    def __init__(self, telemetry_lsn: _Optional[int] = ..., reports_lsn: _Optional[int] = ..., retries: _Optional[_Iterable[_Union[BaseRetry, _Mapping]]] = ..., published: _Optional[int] = ..., retried: _Optional[int] = ..., dropped: _Optional[int] = ..., superseded: _Optional[int] = ..., telemetry_dropped: _Optional[int] = ...) -> None: ...

class BaseUndelivered(_message.Message):
    __slots__ = ("command_id", "lsn")
    COMMAND_ID_FIELD_NUMBER: _ClassVar[int]
    LSN_FIELD_NUMBER: _ClassVar[int]
    command_id: str
    lsn: int
    def __init__(self, command_id: _Optional[str] = ..., lsn: _Optional[int] = ...) -> None: ...

class BaseDeliveries(_message.Message):
    __slots__ = ("forgotten", "delivered", "unmatched")
    FORGOTTEN_FIELD_NUMBER: _ClassVar[int]
    DELIVERED_FIELD_NUMBER: _ClassVar[int]
    UNMATCHED_FIELD_NUMBER: _ClassVar[int]
    forgotten: int
    delivered: int
    unmatched: int
    def __init__(self, forgotten: _Optional[int] = ..., delivered: _Optional[int] = ..., unmatched: _Optional[int] = ...) -> None: ...

class BaseRegistry(_message.Message):
    __slots__ = ("kind", "keys")
    KIND_FIELD_NUMBER: _ClassVar[int]
    KEYS_FIELD_NUMBER: _ClassVar[int]
    kind: str
    keys: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, kind: _Optional[str] = ..., keys: _Optional[_Iterable[str]] = ...) -> None: ...

class BaseLayout(_message.Message):
    __slots__ = ("lsn", "layout")
    LSN_FIELD_NUMBER: _ClassVar[int]
    LAYOUT_FIELD_NUMBER: _ClassVar[int]
    lsn: int
    layout: GraphLayoutObserved
    def __init__(self, lsn: _Optional[int] = ..., layout: _Optional[_Union[GraphLayoutObserved, _Mapping]] = ...) -> None: ...

class BaseParameter(_message.Message):
    __slots__ = ("name", "min", "max")
    NAME_FIELD_NUMBER: _ClassVar[int]
    MIN_FIELD_NUMBER: _ClassVar[int]
    MAX_FIELD_NUMBER: _ClassVar[int]
    name: str
    min: float
    max: float
    def __init__(self, name: _Optional[str] = ..., min: _Optional[float] = ..., max: _Optional[float] = ...) -> None: ...

class BaseSheet(_message.Message):
    __slots__ = ("risk_score", "hazard_band", "handling_class", "resource_profile", "provenance", "recommendation")
    RISK_SCORE_FIELD_NUMBER: _ClassVar[int]
    HAZARD_BAND_FIELD_NUMBER: _ClassVar[int]
    HANDLING_CLASS_FIELD_NUMBER: _ClassVar[int]
    RESOURCE_PROFILE_FIELD_NUMBER: _ClassVar[int]
    PROVENANCE_FIELD_NUMBER: _ClassVar[int]
    RECOMMENDATION_FIELD_NUMBER: _ClassVar[int]
    risk_score: float
    hazard_band: int
    handling_class: int
    resource_profile: int
    provenance: int
    recommendation: str
    def __init__(self, risk_score: _Optional[float] = ..., hazard_band: _Optional[int] = ..., handling_class: _Optional[int] = ..., resource_profile: _Optional[int] = ..., provenance: _Optional[int] = ..., recommendation: _Optional[str] = ...) -> None: ...

class BaseBlueprint(_message.Message):
    __slots__ = ("blueprint_id", "digest", "tier", "stage", "descriptor_risk", "quarantine_only", "approval_required", "allowed_parameters", "sheet", "content_lsn", "observed_at_ns", "withdrawn")
    BLUEPRINT_ID_FIELD_NUMBER: _ClassVar[int]
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    TIER_FIELD_NUMBER: _ClassVar[int]
    STAGE_FIELD_NUMBER: _ClassVar[int]
    DESCRIPTOR_RISK_FIELD_NUMBER: _ClassVar[int]
    QUARANTINE_ONLY_FIELD_NUMBER: _ClassVar[int]
    APPROVAL_REQUIRED_FIELD_NUMBER: _ClassVar[int]
    ALLOWED_PARAMETERS_FIELD_NUMBER: _ClassVar[int]
    SHEET_FIELD_NUMBER: _ClassVar[int]
    CONTENT_LSN_FIELD_NUMBER: _ClassVar[int]
    OBSERVED_AT_NS_FIELD_NUMBER: _ClassVar[int]
    WITHDRAWN_FIELD_NUMBER: _ClassVar[int]
    blueprint_id: str
    digest: str
    tier: int
    stage: int
    descriptor_risk: float
    quarantine_only: bool
    approval_required: bool
    allowed_parameters: _containers.RepeatedCompositeFieldContainer[BaseParameter]
    sheet: BaseSheet
    content_lsn: int
    observed_at_ns: int
    withdrawn: bool
    def __init__(self, blueprint_id: _Optional[str] = ..., digest: _Optional[str] = ..., tier: _Optional[int] = ..., stage: _Optional[int] = ..., descriptor_risk: _Optional[float] = ..., quarantine_only: _Optional[bool] = ..., approval_required: _Optional[bool] = ..., allowed_parameters: _Optional[_Iterable[_Union[BaseParameter, _Mapping]]] = ..., sheet: _Optional[_Union[BaseSheet, _Mapping]] = ..., content_lsn: _Optional[int] = ..., observed_at_ns: _Optional[int] = ..., withdrawn: _Optional[bool] = ...) -> None: ...

class BaseSeed(_message.Message):
    __slots__ = ("seed_id", "blueprint_id")
    SEED_ID_FIELD_NUMBER: _ClassVar[int]
    BLUEPRINT_ID_FIELD_NUMBER: _ClassVar[int]
    seed_id: str
    blueprint_id: str
    def __init__(self, seed_id: _Optional[str] = ..., blueprint_id: _Optional[str] = ...) -> None: ...

class SnapshotTaken(_message.Message):
    __slots__ = ("at_lsn", "digest", "stored", "event_time_ns")
    AT_LSN_FIELD_NUMBER: _ClassVar[int]
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    STORED_FIELD_NUMBER: _ClassVar[int]
    EVENT_TIME_NS_FIELD_NUMBER: _ClassVar[int]
    at_lsn: int
    digest: str
    stored: bool
    event_time_ns: int
    def __init__(self, at_lsn: _Optional[int] = ..., digest: _Optional[str] = ..., stored: _Optional[bool] = ..., event_time_ns: _Optional[int] = ...) -> None: ...

class RetentionPlanned(_message.Message):
    __slots__ = ("run_id", "event_time_ns", "prune_before_lsn", "base_lsn", "payloads", "archive", "segments", "keep_heads")
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    EVENT_TIME_NS_FIELD_NUMBER: _ClassVar[int]
    PRUNE_BEFORE_LSN_FIELD_NUMBER: _ClassVar[int]
    BASE_LSN_FIELD_NUMBER: _ClassVar[int]
    PAYLOADS_FIELD_NUMBER: _ClassVar[int]
    ARCHIVE_FIELD_NUMBER: _ClassVar[int]
    SEGMENTS_FIELD_NUMBER: _ClassVar[int]
    KEEP_HEADS_FIELD_NUMBER: _ClassVar[int]
    run_id: str
    event_time_ns: int
    prune_before_lsn: int
    base_lsn: int
    payloads: _containers.RepeatedCompositeFieldContainer[PayloadWindow]
    archive: str
    segments: _containers.RepeatedCompositeFieldContainer[PrunedSegment]
    keep_heads: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, run_id: _Optional[str] = ..., event_time_ns: _Optional[int] = ..., prune_before_lsn: _Optional[int] = ..., base_lsn: _Optional[int] = ..., payloads: _Optional[_Iterable[_Union[PayloadWindow, _Mapping]]] = ..., archive: _Optional[str] = ..., segments: _Optional[_Iterable[_Union[PrunedSegment, _Mapping]]] = ..., keep_heads: _Optional[_Iterable[str]] = ...) -> None: ...

class PayloadWindow(_message.Message):
    __slots__ = ("kind", "window_ns", "upto_lsn")
    KIND_FIELD_NUMBER: _ClassVar[int]
    WINDOW_NS_FIELD_NUMBER: _ClassVar[int]
    UPTO_LSN_FIELD_NUMBER: _ClassVar[int]
    kind: int
    window_ns: int
    upto_lsn: int
    def __init__(self, kind: _Optional[int] = ..., window_ns: _Optional[int] = ..., upto_lsn: _Optional[int] = ...) -> None: ...

class RetentionCompleted(_message.Message):
    __slots__ = ("run_id", "event_time_ns", "first_lsn", "freed_bytes", "payloads_redacted", "segments", "digest_lsn", "digest", "resumed")
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    EVENT_TIME_NS_FIELD_NUMBER: _ClassVar[int]
    FIRST_LSN_FIELD_NUMBER: _ClassVar[int]
    FREED_BYTES_FIELD_NUMBER: _ClassVar[int]
    PAYLOADS_REDACTED_FIELD_NUMBER: _ClassVar[int]
    SEGMENTS_FIELD_NUMBER: _ClassVar[int]
    DIGEST_LSN_FIELD_NUMBER: _ClassVar[int]
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    RESUMED_FIELD_NUMBER: _ClassVar[int]
    run_id: str
    event_time_ns: int
    first_lsn: int
    freed_bytes: int
    payloads_redacted: int
    segments: _containers.RepeatedCompositeFieldContainer[PrunedSegment]
    digest_lsn: int
    digest: str
    resumed: bool
    def __init__(self, run_id: _Optional[str] = ..., event_time_ns: _Optional[int] = ..., first_lsn: _Optional[int] = ..., freed_bytes: _Optional[int] = ..., payloads_redacted: _Optional[int] = ..., segments: _Optional[_Iterable[_Union[PrunedSegment, _Mapping]]] = ..., digest_lsn: _Optional[int] = ..., digest: _Optional[str] = ..., resumed: _Optional[bool] = ...) -> None: ...

class RegistryStamp(_message.Message):
    __slots__ = ("kind", "count", "digest")
    KIND_FIELD_NUMBER: _ClassVar[int]
    COUNT_FIELD_NUMBER: _ClassVar[int]
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    kind: str
    count: int
    digest: str
    def __init__(self, kind: _Optional[str] = ..., count: _Optional[int] = ..., digest: _Optional[str] = ...) -> None: ...

class PolicyInstalled(_message.Message):
    __slots__ = ("version", "architecture", "checkpoint_digest", "policy_id", "training_run_id", "issued_unix_ns", "registries", "event_time_ns", "operator", "reason", "request_id", "updates_after_unix_ns")
    VERSION_FIELD_NUMBER: _ClassVar[int]
    ARCHITECTURE_FIELD_NUMBER: _ClassVar[int]
    CHECKPOINT_DIGEST_FIELD_NUMBER: _ClassVar[int]
    POLICY_ID_FIELD_NUMBER: _ClassVar[int]
    TRAINING_RUN_ID_FIELD_NUMBER: _ClassVar[int]
    ISSUED_UNIX_NS_FIELD_NUMBER: _ClassVar[int]
    REGISTRIES_FIELD_NUMBER: _ClassVar[int]
    EVENT_TIME_NS_FIELD_NUMBER: _ClassVar[int]
    OPERATOR_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    UPDATES_AFTER_UNIX_NS_FIELD_NUMBER: _ClassVar[int]
    version: str
    architecture: str
    checkpoint_digest: str
    policy_id: str
    training_run_id: str
    issued_unix_ns: int
    registries: _containers.RepeatedCompositeFieldContainer[RegistryStamp]
    event_time_ns: int
    operator: str
    reason: str
    request_id: str
    updates_after_unix_ns: int
    def __init__(self, version: _Optional[str] = ..., architecture: _Optional[str] = ..., checkpoint_digest: _Optional[str] = ..., policy_id: _Optional[str] = ..., training_run_id: _Optional[str] = ..., issued_unix_ns: _Optional[int] = ..., registries: _Optional[_Iterable[_Union[RegistryStamp, _Mapping]]] = ..., event_time_ns: _Optional[int] = ..., operator: _Optional[str] = ..., reason: _Optional[str] = ..., request_id: _Optional[str] = ..., updates_after_unix_ns: _Optional[int] = ...) -> None: ...

class PolicyRejected(_message.Message):
    __slots__ = ("reason", "detail", "policy_id", "version", "payload_digest", "event_time_ns")
    REASON_FIELD_NUMBER: _ClassVar[int]
    DETAIL_FIELD_NUMBER: _ClassVar[int]
    POLICY_ID_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    PAYLOAD_DIGEST_FIELD_NUMBER: _ClassVar[int]
    EVENT_TIME_NS_FIELD_NUMBER: _ClassVar[int]
    reason: str
    detail: str
    policy_id: str
    version: str
    payload_digest: str
    event_time_ns: int
    def __init__(self, reason: _Optional[str] = ..., detail: _Optional[str] = ..., policy_id: _Optional[str] = ..., version: _Optional[str] = ..., payload_digest: _Optional[str] = ..., event_time_ns: _Optional[int] = ...) -> None: ...

class PolicyRolledBack(_message.Message):
    __slots__ = ("from_version", "version", "checkpoint_digest", "cause", "operator", "reason", "request_id", "event_time_ns", "updates_after_unix_ns")
    FROM_VERSION_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    CHECKPOINT_DIGEST_FIELD_NUMBER: _ClassVar[int]
    CAUSE_FIELD_NUMBER: _ClassVar[int]
    OPERATOR_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    EVENT_TIME_NS_FIELD_NUMBER: _ClassVar[int]
    UPDATES_AFTER_UNIX_NS_FIELD_NUMBER: _ClassVar[int]
    from_version: str
    version: str
    checkpoint_digest: str
    cause: str
    operator: str
    reason: str
    request_id: str
    event_time_ns: int
    updates_after_unix_ns: int
    def __init__(self, from_version: _Optional[str] = ..., version: _Optional[str] = ..., checkpoint_digest: _Optional[str] = ..., cause: _Optional[str] = ..., operator: _Optional[str] = ..., reason: _Optional[str] = ..., request_id: _Optional[str] = ..., event_time_ns: _Optional[int] = ..., updates_after_unix_ns: _Optional[int] = ...) -> None: ...

class RegistryImported(_message.Message):
    __slots__ = ("kind", "keys", "first_index", "operator", "event_time_ns")
    KIND_FIELD_NUMBER: _ClassVar[int]
    KEYS_FIELD_NUMBER: _ClassVar[int]
    FIRST_INDEX_FIELD_NUMBER: _ClassVar[int]
    OPERATOR_FIELD_NUMBER: _ClassVar[int]
    EVENT_TIME_NS_FIELD_NUMBER: _ClassVar[int]
    kind: str
    keys: _containers.RepeatedScalarFieldContainer[str]
    first_index: int
    operator: str
    event_time_ns: int
    def __init__(self, kind: _Optional[str] = ..., keys: _Optional[_Iterable[str]] = ..., first_index: _Optional[int] = ..., operator: _Optional[str] = ..., event_time_ns: _Optional[int] = ...) -> None: ...

class BaseInstalledPolicy(_message.Message):
    __slots__ = ("version", "checkpoint_digest", "policy_id", "lsn")
    VERSION_FIELD_NUMBER: _ClassVar[int]
    CHECKPOINT_DIGEST_FIELD_NUMBER: _ClassVar[int]
    POLICY_ID_FIELD_NUMBER: _ClassVar[int]
    LSN_FIELD_NUMBER: _ClassVar[int]
    version: str
    checkpoint_digest: str
    policy_id: str
    lsn: int
    def __init__(self, version: _Optional[str] = ..., checkpoint_digest: _Optional[str] = ..., policy_id: _Optional[str] = ..., lsn: _Optional[int] = ...) -> None: ...

class BasePolicies(_message.Message):
    __slots__ = ("current", "previous", "issued_unix_ns", "proposals_left", "failures")
    CURRENT_FIELD_NUMBER: _ClassVar[int]
    PREVIOUS_FIELD_NUMBER: _ClassVar[int]
    ISSUED_UNIX_NS_FIELD_NUMBER: _ClassVar[int]
    PROPOSALS_LEFT_FIELD_NUMBER: _ClassVar[int]
    FAILURES_FIELD_NUMBER: _ClassVar[int]
    current: BaseInstalledPolicy
    previous: BaseInstalledPolicy
    issued_unix_ns: int
    proposals_left: int
    failures: int
    def __init__(self, current: _Optional[_Union[BaseInstalledPolicy, _Mapping]] = ..., previous: _Optional[_Union[BaseInstalledPolicy, _Mapping]] = ..., issued_unix_ns: _Optional[int] = ..., proposals_left: _Optional[int] = ..., failures: _Optional[int] = ...) -> None: ...

class PrunedSegment(_message.Message):
    __slots__ = ("segment", "first_lsn", "last_lsn", "size_bytes", "archived_as", "archived_sha256")
    SEGMENT_FIELD_NUMBER: _ClassVar[int]
    FIRST_LSN_FIELD_NUMBER: _ClassVar[int]
    LAST_LSN_FIELD_NUMBER: _ClassVar[int]
    SIZE_BYTES_FIELD_NUMBER: _ClassVar[int]
    ARCHIVED_AS_FIELD_NUMBER: _ClassVar[int]
    ARCHIVED_SHA256_FIELD_NUMBER: _ClassVar[int]
    segment: int
    first_lsn: int
    last_lsn: int
    size_bytes: int
    archived_as: str
    archived_sha256: str
    def __init__(self, segment: _Optional[int] = ..., first_lsn: _Optional[int] = ..., last_lsn: _Optional[int] = ..., size_bytes: _Optional[int] = ..., archived_as: _Optional[str] = ..., archived_sha256: _Optional[str] = ...) -> None: ...
