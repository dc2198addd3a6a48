CREATE TABLE public.finesweep_artifacts (
    sweep_id integer NOT NULL,
    number integer NOT NULL,
    attempt integer NOT NULL,
    kind text NOT NULL,
    path text NOT NULL,
    created_at double precision NOT NULL,
    removed_at double precision
);
CREATE TABLE public.finesweep_attempts (
    sweep_id integer NOT NULL,
    number integer NOT NULL,
    attempt integer NOT NULL,
    ending text,
    reason text,
    traceback text,
    started_at double precision NOT NULL,
    ended_at double precision,
    facts text NOT NULL
);
CREATE TABLE public.finesweep_reports (
    sweep_id integer NOT NULL,
    number integer NOT NULL,
    step bigint NOT NULL,
    attempt integer NOT NULL,
    examples_seen bigint NOT NULL,
    final boolean NOT NULL,
    decision text NOT NULL,
    metrics text NOT NULL,
    reported_at double precision NOT NULL
);
CREATE TABLE public.finesweep_sweeps (
    id integer NOT NULL,
    name text NOT NULL,
    spec text NOT NULL,
    provenance text NOT NULL,
    grid text NOT NULL,
    state text NOT NULL,
    created_at double precision NOT NULL,
    budget_trials integer NOT NULL,
    seconds_used double precision NOT NULL,
    study_attributes text NOT NULL,
    stop_requested_at double precision,
    holder_host text,
    holder_pid bigint,
    holder_started bigint,
    held_since double precision,
    expires_at double precision,
    epoch bigint NOT NULL
);
CREATE SEQUENCE public.finesweep_sweeps_id_seq
    AS integer
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1;
ALTER SEQUENCE public.finesweep_sweeps_id_seq OWNED BY public.finesweep_sweeps.id;
CREATE TABLE public.finesweep_trials (
    sweep_id integer NOT NULL,
    number integer NOT NULL,
    state text NOT NULL,
    reason text,
    value double precision,
    value_step bigint,
    source text NOT NULL,
    configuration text NOT NULL,
    parameters text NOT NULL,
    distributions text NOT NULL,
    attributes text NOT NULL,
    twin_of integer,
    reused_from integer,
    started_at double precision,
    finished_at double precision,
    facts text NOT NULL,
    examples_seen bigint NOT NULL
);
CREATE TABLE public.finesweep_version (
    version integer NOT NULL
);
ALTER TABLE ONLY public.finesweep_sweeps ALTER COLUMN id SET DEFAULT nextval('public.finesweep_sweeps_id_seq'::regclass);
INSERT INTO public.finesweep_artifacts VALUES (1, 0, 1, 'best', 'trial-0000/best-200', 1700000015.25, NULL);
INSERT INTO public.finesweep_artifacts VALUES (1, 0, 1, 'checkpoint', 'trial-0000/checkpoint', 1700000015.25, NULL);
INSERT INTO public.finesweep_artifacts VALUES (1, 2, 1, 'checkpoint', 'trial-0002/checkpoint', 1700000027.25, 1700000039.25);
INSERT INTO public.finesweep_attempts VALUES (1, 0, 1, 'done', NULL, NULL, 1700000007.75, 1700000015.25, '{"device":"cpu","n_trainable":1234,"n_parameters":99999}');
INSERT INTO public.finesweep_attempts VALUES (1, 1, 1, 'stopped', NULL, NULL, 1700000018.25, 1700000021.25, '{}');
INSERT INTO public.finesweep_attempts VALUES (1, 2, 1, 'lost', 'its worker died', NULL, 1700000024.25, 1700000027.25, '{}');
INSERT INTO public.finesweep_attempts VALUES (1, 2, 2, 'failed', 'ValueError: boom', 'Traceback
  ünï', 1700000028.75, 1700000030.25, '{}');
INSERT INTO public.finesweep_attempts VALUES (1, 4, 1, NULL, NULL, NULL, 1700000034.75, NULL, '{}');
INSERT INTO public.finesweep_reports VALUES (1, 0, 100, 1, 104, false, 'continue', '{"accuracy":0.5,"loss":0.3333333333333333}', 1700000010.75);
INSERT INTO public.finesweep_reports VALUES (1, 0, 200, 1, 204, false, 'continue', '{"accuracy":0.75,"loss":0.3333333333333333}', 1700000012.25);
INSERT INTO public.finesweep_reports VALUES (1, 0, 300, 1, 304, true, 'continue', '{"accuracy":0.7,"loss":0.3333333333333333}', 1700000013.75);
INSERT INTO public.finesweep_reports VALUES (1, 1, 100, 1, 104, false, 'stop', '{"accuracy":"nan","loss":"inf"}', 1700000019.75);
INSERT INTO public.finesweep_reports VALUES (1, 2, 100, 1, 104, false, 'continue', '{"accuracy":0.6,"loss":0.3333333333333333}', 1700000025.75);
INSERT INTO public.finesweep_reports VALUES (1, 4, 100, 1, 104, false, 'continue', '{"accuracy":0.55,"loss":0.3333333333333333}', 1700000036.25);
INSERT INTO public.finesweep_sweeps VALUES (2, 'waiting', '{"name":"waiting","study":{"objective":{"metric":"accuracy","direction":"maximize","value":"best"},"sampler":{"type":"tpe","seed":0,"startup_trials":10},"pruner":{"type":"none","compare_at":"examples"},"parameters":{"learning_rate":{"type":"float","low":1e-06,"high":0.001,"log":true,"step":null,"when":null},"batch_size":{"type":"categorical","choices":[8,16,32],"when":null}}},"trainer":"transformers","code_dir":null,"model":{"name":"tiny","revision":null,"dtype":"float32","attention":null,"quantize":null,"trust_remote_code":false,"allow_pickle":false},"task":"classification","data":{"dataset":null,"config":null,"revision":null,"train":"/data/train.jsonl","validation":"/data/validation.jsonl","test":null,"format":"prompt-completion","text":"text","text_pair":null,"label":"label","prompt":"prompt","completion":"completion","messages":"messages","max_length":128,"max_train_rows":null,"max_validation_rows":null,"incomplete":"refuse","seed":0},"training":{"method":"full","unfrozen_layers":0,"pooling":"model","lora_rank":8,"lora_alpha":8.0,"lora_dropout":0.0,"lora_target_modules":"all-linear","learning_rate":5e-05,"batch_size":8,"epochs":3.0,"warmup_steps":0,"warmup_ratio":null,"weight_decay":0.0,"early_stopping_patience":null,"early_stopping_min_delta":0.0,"divergence_factor":5.0,"device_batch_size":null,"seed":0,"eval_every":null,"checkpoint_minutes":1.0,"report_to":[]},"evaluation":{"metrics":{},"generation":null},"start_with":[],"try_defaults":true,"budget":{"trials":6,"hours":null,"at_end":"finish","retries":2,"retry_on":["lost"],"stall_minutes":null,"stop_after_failures":5},"resources":{"devices":"auto","gpus_per_trial":1.0,"cpus_per_trial":null,"max_parallel":null,"feature_cache_gib":20.0,"stack":16,"address":null},"artifacts":{"folder":null,"keep":"best"},"results":null}', '{}', '{"unit":"examples","every":100,"longest":300}', 'NEW', 1700000003.25, 6, 0, '{}', 1700000040.75, NULL, NULL, NULL, NULL, NULL, 0);
INSERT INTO public.finesweep_sweeps VALUES (1, 'tickets', '{"name":"tickets","study":{"objective":{"metric":"accuracy","direction":"maximize","value":"best"},"sampler":{"type":"tpe","seed":0,"startup_trials":10},"pruner":{"type":"none","compare_at":"examples"},"parameters":{"learning_rate":{"type":"float","low":1e-06,"high":0.001,"log":true,"step":null,"when":null},"batch_size":{"type":"categorical","choices":[8,16,32],"when":null}}},"trainer":"transformers","code_dir":null,"model":{"name":"tiny","revision":null,"dtype":"float32","attention":null,"quantize":null,"trust_remote_code":false,"allow_pickle":false},"task":"classification","data":{"dataset":null,"config":null,"revision":null,"train":"/data/train.jsonl","validation":"/data/validation.jsonl","test":null,"format":"prompt-completion","text":"text","text_pair":null,"label":"label","prompt":"prompt","completion":"completion","messages":"messages","max_length":128,"max_train_rows":null,"max_validation_rows":null,"incomplete":"refuse","seed":0},"training":{"method":"full","unfrozen_layers":0,"pooling":"model","lora_rank":8,"lora_alpha":8.0,"lora_dropout":0.0,"lora_target_modules":"all-linear","learning_rate":5e-05,"batch_size":8,"epochs":3.0,"warmup_steps":0,"warmup_ratio":null,"weight_decay":0.0,"early_stopping_patience":null,"early_stopping_min_delta":0.0,"divergence_factor":5.0,"device_batch_size":null,"seed":0,"eval_every":null,"checkpoint_minutes":1.0,"report_to":[]},"evaluation":{"metrics":{},"generation":null},"start_with":[],"try_defaults":true,"budget":{"trials":6,"hours":null,"at_end":"finish","retries":2,"retry_on":["lost"],"stall_minutes":null,"stop_after_failures":5},"resources":{"devices":"auto","gpus_per_trial":1.0,"cpus_per_trial":null,"max_parallel":null,"feature_cache_gib":20.0,"stack":16,"address":null},"artifacts":{"folder":null,"keep":"best"},"results":null}', '{"artifact_dir":"/runs/artifacts/tickets","host":"näin ''quoted''"}', '{"unit":"examples","every":100,"longest":300}', 'RUNNING', 1700000001.75, 6, 12.5, '{"seen":5}', NULL, 'a-host-long-gone', 4711, 99, 1700000004.75, 1700000064.75, 1);
INSERT INTO public.finesweep_trials VALUES (1, 2, 'FAILED', 'ValueError: boom', NULL, NULL, 'sampler', '{"learning_rate":0.0002,"batch_size":32}', '{"learning_rate":0.0002,"batch_size":32}', '{"learning_rate":"{\"name\": \"FloatDistribution\", \"attributes\": {\"step\": null, \"low\": 1e-06, \"high\": 0.001, \"log\": true}}","batch_size":"{\"name\": \"CategoricalDistribution\", \"attributes\": {\"choices\": [8, 16, 32]}}"}', '{"sampler:state":[2,{"$number":"inf"}],"rung:100":0.6}', NULL, NULL, 1700000024.25, 1700000030.25, '{}', 104);
INSERT INTO public.finesweep_trials VALUES (1, 0, 'COMPLETE', NULL, 0.75, 200, 'sampler', '{"learning_rate":3.2e-05,"batch_size":16}', '{"learning_rate":3.2e-05,"batch_size":16}', '{"learning_rate":"{\"name\": \"FloatDistribution\", \"attributes\": {\"step\": null, \"low\": 1e-06, \"high\": 0.001, \"log\": true}}","batch_size":"{\"name\": \"CategoricalDistribution\", \"attributes\": {\"choices\": [8, 16, 32]}}"}', '{"sampler:state":[0,{"$number":"inf"}],"rung:100":0.5,"rung:200":0.75,"rung:300":0.7,"done":1}', NULL, NULL, 1700000007.75, 1700000015.25, '{"device":"cpu","n_trainable":1234,"n_parameters":99999}', 304);
INSERT INTO public.finesweep_trials VALUES (1, 3, 'COMPLETE', NULL, 0.75, 200, 'sampler', '{"learning_rate":3.2e-05,"batch_size":16}', '{"learning_rate":3.2e-05,"batch_size":16}', '{"learning_rate":"{\"name\": \"FloatDistribution\", \"attributes\": {\"step\": null, \"low\": 1e-06, \"high\": 0.001, \"log\": true}}","batch_size":"{\"name\": \"CategoricalDistribution\", \"attributes\": {\"choices\": [8, 16, 32]}}"}', '{"sampler:state":[3,{"$number":"inf"}]}', 0, 0, NULL, 1700000031.75, '{}', 0);
INSERT INTO public.finesweep_trials VALUES (1, 1, 'PRUNED', 'diverged at step 100', NULL, NULL, 'sampler', '{"learning_rate":0.0001,"batch_size":8}', '{"learning_rate":0.0001,"batch_size":8}', '{"learning_rate":"{\"name\": \"FloatDistribution\", \"attributes\": {\"step\": null, \"low\": 1e-06, \"high\": 0.001, \"log\": true}}","batch_size":"{\"name\": \"CategoricalDistribution\", \"attributes\": {\"choices\": [8, 16, 32]}}"}', '{"sampler:state":[1,{"$number":"inf"}]}', NULL, NULL, 1700000018.25, 1700000019.75, '{}', 104);
INSERT INTO public.finesweep_trials VALUES (1, 4, 'RUNNING', NULL, NULL, NULL, 'sampler', '{"learning_rate":5e-05,"batch_size":8}', '{"learning_rate":5e-05,"batch_size":8}', '{"learning_rate":"{\"name\": \"FloatDistribution\", \"attributes\": {\"step\": null, \"low\": 1e-06, \"high\": 0.001, \"log\": true}}","batch_size":"{\"name\": \"CategoricalDistribution\", \"attributes\": {\"choices\": [8, 16, 32]}}"}', '{"sampler:state":[4,{"$number":"inf"}],"rung:100":0.55}', NULL, NULL, 1700000034.75, NULL, '{}', 104);
INSERT INTO public.finesweep_trials VALUES (1, 5, 'WAITING', NULL, NULL, NULL, 'sampler', '{"learning_rate":6e-05,"batch_size":8}', '{"learning_rate":6e-05,"batch_size":8}', '{"learning_rate":"{\"name\": \"FloatDistribution\", \"attributes\": {\"step\": null, \"low\": 1e-06, \"high\": 0.001, \"log\": true}}","batch_size":"{\"name\": \"CategoricalDistribution\", \"attributes\": {\"choices\": [8, 16, 32]}}"}', '{"sampler:state":[5,{"$number":"inf"}]}', NULL, NULL, NULL, NULL, '{}', 0);
INSERT INTO public.finesweep_version VALUES (1);
SELECT pg_catalog.setval('public.finesweep_sweeps_id_seq', 2, true);
ALTER TABLE ONLY public.finesweep_artifacts
    ADD CONSTRAINT finesweep_artifacts_pkey PRIMARY KEY (sweep_id, number, attempt, kind);
ALTER TABLE ONLY public.finesweep_attempts
    ADD CONSTRAINT finesweep_attempts_pkey PRIMARY KEY (sweep_id, number, attempt);
ALTER TABLE ONLY public.finesweep_reports
    ADD CONSTRAINT finesweep_reports_pkey PRIMARY KEY (sweep_id, number, step);
ALTER TABLE ONLY public.finesweep_sweeps
    ADD CONSTRAINT finesweep_sweeps_name_key UNIQUE (name);
ALTER TABLE ONLY public.finesweep_sweeps
    ADD CONSTRAINT finesweep_sweeps_pkey PRIMARY KEY (id);
ALTER TABLE ONLY public.finesweep_trials
    ADD CONSTRAINT finesweep_trials_pkey PRIMARY KEY (sweep_id, number);
ALTER TABLE ONLY public.finesweep_version
    ADD CONSTRAINT finesweep_version_pkey PRIMARY KEY (version);
CREATE INDEX finesweep_trials_by_value ON public.finesweep_trials USING btree (sweep_id, state, value);
ALTER TABLE ONLY public.finesweep_artifacts
    ADD CONSTRAINT finesweep_artifacts_sweep_id_number_fkey FOREIGN KEY (sweep_id, number) REFERENCES public.finesweep_trials(sweep_id, number) ON DELETE CASCADE;
ALTER TABLE ONLY public.finesweep_attempts
    ADD CONSTRAINT finesweep_attempts_sweep_id_number_fkey FOREIGN KEY (sweep_id, number) REFERENCES public.finesweep_trials(sweep_id, number) ON DELETE CASCADE;
ALTER TABLE ONLY public.finesweep_reports
    ADD CONSTRAINT finesweep_reports_sweep_id_number_fkey FOREIGN KEY (sweep_id, number) REFERENCES public.finesweep_trials(sweep_id, number) ON DELETE CASCADE;
ALTER TABLE ONLY public.finesweep_trials
    ADD CONSTRAINT finesweep_trials_sweep_id_fkey FOREIGN KEY (sweep_id) REFERENCES public.finesweep_sweeps(id) ON DELETE CASCADE;
