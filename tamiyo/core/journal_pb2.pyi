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
    __slots__ = ("first_step_index", "last_step_index", "count", "event_time_ns", "cause")
    FIRST_STEP_INDEX_FIELD_NUMBER: _ClassVar[int]
    LAST_STEP_INDEX_FIELD_NUMBER: _ClassVar[int]
    COUNT_FIELD_NUMBER: _ClassVar[int]
    EVENT_TIME_NS_FIELD_NUMBER: _ClassVar[int]
    CAUSE_FIELD_NUMBER: _ClassVar[int]
    first_step_index: int
    last_step_index: int
    count: int
    event_time_ns: int
    cause: str
    def __init__(self, first_step_index: _Optional[int] = ..., last_step_index: _Optional[int] = ..., count: _Optional[int] = ..., event_time_ns: _Optional[int] = ..., cause: _Optional[str] = ...) -> None: ...

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
