using System.Text.Json.Nodes;
using k8s;
using k8s.Models;
using Tensormesh.Resources;

namespace Resources.Tests;

/// <summary>What the types become as JSON, and what they read back.</summary>
public sealed class WireTests
{
    private static readonly V1Condition Ready = new()
    {
        Type = ConditionTypes.Ready,
        Status = "True",
        Reason = ConditionReasons.Running,
        Message = "2 of 2 pods run.",
        ObservedGeneration = 3,
        LastTransitionTime = new DateTime(2026, 11, 23, 8, 26, 23, DateTimeKind.Utc),
    };

    [Fact]
    public void Every_property_of_a_deployment_is_in_its_CRD() => IsKnownInFull(FullDeployment(), GpuDeployment.PluralName);

    [Fact]
    public void Every_property_of_an_account_is_in_its_CRD() => IsKnownInFull(
        new BillingAccount
        {
            Metadata = new() { Name = "acme" },
            Spec = new() { DisplayName = "Acme", LowBalanceAlert = "50.00", CardGracePeriod = "24h", TimeZone = "UTC" },
            Status = new()
            {
                ObservedGeneration = 3,
                Balance = "-0.50",
                Held = "5.00",
                BurnPerHour = "5.00",
                Runway = "3d4h",
                Card = "Valid",
                Conditions = [Ready],
            },
        },
        BillingAccount.PluralName);

    [Fact]
    public void Every_property_of_a_price_book_is_in_its_CRD() => IsKnownInFull(
        new PriceBook
        {
            Metadata = new() { Name = "list-prices" },
            Spec = new()
            {
                Gpus = [new() { Product = "NVIDIA-L40S", PerHour = "0.90" }],
                Serverless =
                [
                    new() { Model = "openai/gpt-oss-20b", InputPerMillion = "0.07", OutputPerMillion = "0.28", CachedPerMillion = "0" },
                ],
            },
            Status = new() { ObservedGeneration = 3, Conditions = [Ready] },
        },
        PriceBook.PluralName);

    [Fact]
    public void Every_property_of_a_gpu_node_is_in_its_CRD() => IsKnownInFull(FullGpuNode(), GpuNode.PluralName);

    [Theory]
    [InlineData("""{"devices": [{"index": 0}]}""", ".status.devices[0]: lacks health")]
    [InlineData("""{"devices": [{"health": "Fine"}]}""", ".status.devices[0].health: is not among the allowed")]
    [InlineData("""{"devices": [{"health": "Unknown", "uuid": "0"}]}""", ".status.devices[0].uuid: does not match ^(GPU|MIG)-[0-9A-Za-z/-]+$")]
    [InlineData("""{"outages": [{"uuid": "GPU-0", "health": "Healthy"}]}""", ".status.outages[0].health: is not among the allowed")]
    [InlineData("""{"allocations": [{"podNamespace": "a", "podName": "b", "container": "c"}]}""", ".status.allocations[0]: lacks gpus")]
    public void The_schema_alone_refuses_a_report_that_nobody_could_bill_by(string status, string refusal) => Assert.Equal(
        [refusal],
        new ApiServer(GpuNode.PluralName).Refusals(JsonNode.Parse($$"""{"metadata": {"name": "gpu-a"}, "status": {{status}}}""")!.AsObject()));

    [Fact]
    public void Times_of_a_gpu_node_keep_their_microseconds_and_are_in_utc()
    {
        var seen = new DateTimeOffset(2026, 11, 23, 9, 26, 23, TimeSpan.FromHours(1)).AddMicroseconds(1);

        var text = KubernetesJson.Serialize(new GpuNodeStatus { HeartbeatTime = seen });

        Assert.Equal("""{"heartbeatTime":"2026-11-23T08:26:23.000001Z"}""", text);
        Assert.Equal(seen, KubernetesJson.Deserialize<GpuNodeStatus>(text).HeartbeatTime);
    }

    private static GpuNode FullGpuNode()
    {
        var time = new DateTimeOffset(2026, 11, 23, 8, 26, 23, TimeSpan.Zero);
        return new()
        {
            Metadata = new() { Name = "gpu-a" },
            Status = new()
            {
                NodeName = "gpu-a",
                HeartbeatTime = time,
                HeartbeatSeconds = 30,
                Gpus = 8,
                HealthyGpus = 7,
                FreeGpus = 5,
                Product = "NVIDIA-H100-80GB-HBM3",
                DriverVersion = "550.54.15",
                CudaVersion = "12.4",
                Devices =
                [
                    new()
                    {
                        Uuid = "GPU-5a4fd7b2-6ff7-4b8e-9d5f-0d1b1f1f2c3a",
                        Index = 0,
                        Product = "NVIDIA-H100-80GB-HBM3",
                        MemoryMiB = 81559,
                        ComputeCapability = "9.0",
                        PciBusId = "00000000:3B:00.0",
                        Health = GpuHealth.Unhealthy,
                        Reason = "Lost",
                        Message = "the device fell off the bus",
                        Since = time,
                        LastHealthyTime = time,
                        HeldBy = ["33333333-3333-3333-3333-333333333333"],
                        MigInstances = [new() { Uuid = "MIG-8f3c5a5e-3f7d-5a3b-9d0e-1a2b3c4d5e6f", Name = "MIG 1g.10gb", MemoryMiB = 9728 }],
                    },
                ],
                Allocations =
                [
                    new()
                    {
                        PodUid = "0e4fd7b2-6ff7-4b8e-9d5f-0d1b1f1f2c3a",
                        PodNamespace = "team-a",
                        PodName = "trainer-0",
                        Container = "trainer",
                        Gpus = ["GPU-5a4fd7b2-6ff7-4b8e-9d5f-0d1b1f1f2c3a"],
                        Since = time,
                    },
                ],
                Outages =
                [
                    new()
                    {
                        Uuid = "GPU-5a4fd7b2-6ff7-4b8e-9d5f-0d1b1f1f2c3a",
                        Health = GpuHealth.Unknown,
                        Reason = "Unresponsive",
                        Message = "the driver did not answer",
                        LastHealthyTime = time,
                        HeldBy = ["33333333-3333-3333-3333-333333333333"],
                        From = time,
                        Until = time,
                    },
                ],
                OutagesDroppedUntil = time,
                Conditions = [Ready],
            },
        };
    }

    [Fact]
    public void A_rich_pod_template_comes_back_as_it_went()
    {
        var text = RichTemplate.ToJsonString();

        var read = KubernetesJson.Deserialize<GpuDeployment>(text);
        var written = JsonNode.Parse(KubernetesJson.Serialize(read))!["spec"]!["template"]!;

        Assert.Empty(Validation.Validate(read));
        Assert.True(JsonNode.DeepEquals(RichTemplate["spec"]!["template"], written), written.ToJsonString());
        Assert.Empty(new ApiServer(GpuDeployment.PluralName).Refusals(RichTemplate));
    }

    [Fact]
    public void A_packed_pod_template_is_written_and_unpacked_as_it_was()
    {
        var read = KubernetesJson.Deserialize<GpuDeployment>(RichTemplate.ToJsonString());
        var before = KubernetesJson.Serialize(read);

        read.Spec.Template = PackedPodTemplate.Pack(read.Spec.Template);

        Assert.Null(read.Spec.Template.Spec);
        Assert.Same(read.Spec.Template, PackedPodTemplate.Pack(read.Spec.Template));
        Assert.Equal(before, KubernetesJson.Serialize(read));
        read.Spec.Template = PackedPodTemplate.Unpack(read.Spec.Template);
        Assert.Equal(before, KubernetesJson.Serialize(read));
        Assert.Same(read.Spec.Template, PackedPodTemplate.Unpack(read.Spec.Template));
    }

    [Theory]
    [InlineData("0.5Gi", 536870912)]
    [InlineData("1e3", 1000)]
    [InlineData("0.5", 0.5)]
    [InlineData("250m", 0.25)]
    public void A_quantity_keeps_its_amount_when_it_is_written_another_way(string text, double amount)
    {
        var deployment = new GpuDeployment { Spec = { Template = { Spec = new() { Overhead = new Dictionary<string, ResourceQuantity>() } } } };
        deployment.Spec.Template.Spec.Overhead["cpu"] = new(text);

        var read = KubernetesJson.Deserialize<GpuDeployment>(KubernetesJson.Serialize(deployment));

        Assert.Equal(amount, read.Spec.Template.Spec.Overhead["cpu"].ToDouble());
    }

    [Fact]
    public void A_field_that_the_client_does_not_know_does_no_harm()
    {
        var text = """{"spec": {"template": {"spec": {"containers": [{"name": "a", "fromTheFuture": {"x": 1}}], "alsoNew": true}}}}""";

        var read = KubernetesJson.Deserialize<GpuDeployment>(text);

        Assert.Equal("a", read.Spec.Template.Spec.Containers.Single().Name);
        Assert.Empty(Validation.Validate(read));
    }

    [Theory]
    [InlineData("""{"spec": {"containers": [{"name": "a"}], "nodeSelector": 5}}""")]
    [InlineData("""{"spec": {"containers": [{"name": "a", "env": "all"}]}}""")]
    [InlineData("""{"spec": {"containers": [{"name": "a", "resources": {"limits": {"cpu": true}}}]}}""")]
    [InlineData("""{"spec": {"containers": [{"name": "a", "resources": {"limits": {"cpu": "banana"}}}]}}""")]
    [InlineData("""{"spec": {"containers": [{"name": "a", "resources": {"limits": {"cpu": "1e999999999"}}}]}}""")]
    [InlineData("""{"spec": {"containers": [{"name": "a"}], "overhead": {"cpu": 1e999999999}}}""")]
    [InlineData("""{"spec": {"containers": [{"name": "a"}], "volumes": [{"name": "v", "emptyDir": {"sizeLimit": "1e-999999999"}}]}}""")]
    [InlineData("""{"spec": {"containers": [{"name": "a"}], "terminationGracePeriodSeconds": "soon"}}""")]
    [InlineData("""{"metadata": {"creationTimestamp": "yesterday"}, "spec": {"containers": [{"name": "a"}]}}""")]
    public void A_template_that_cannot_be_read_spoils_neither_its_list_nor_itself(string template)
    {
        var list = $$"""{"items": [{"spec": {"template": {{template}} } }, {"metadata": {"name": "sound"}, "spec": {} }]}""";

        var read = KubernetesJson.Deserialize<ObjectList<GpuDeployment>>(list);

        Assert.Equal("sound", read.Items[1].Metadata.Name);
        var error = Assert.Single(Validation.Validate(read.Items[0]));
        Assert.Equal("spec.template", error.Field);
        Assert.StartsWith("is not a pod template: ", error.Message, StringComparison.Ordinal);
        Assert.Same(read.Items[0].Spec.Template, PackedPodTemplate.Pack(read.Items[0].Spec.Template));
        var written = JsonNode.Parse(KubernetesJson.Serialize(read.Items[0]))!["spec"]!["template"];
        Assert.Equal(JsonNode.Parse(template)!.ToJsonString(), written!.ToJsonString());
    }

    [Theory]
    [InlineData("Z", 0)]
    [InlineData(".1Z", 100_000_000)]
    [InlineData(".12Z", 120_000_000)]
    [InlineData(".123Z", 123_000_000)]
    [InlineData(".1234Z", 123_400_000)]
    [InlineData(".12345Z", 123_450_000)]
    [InlineData(".123456Z", 123_456_000)]
    [InlineData(".1234567Z", 123_456_700)]
    [InlineData(".12345678Z", 123_456_700)]
    [InlineData(".123456789Z", 123_456_700)]
    [InlineData("+00:00", 0)]
    [InlineData(".5+00:00", 500_000_000)]
    public void Timestamps_are_read_with_any_number_of_fractional_digits(string tail, long nanoseconds)
    {
        var text = $$"""
            {"metadata": {"creationTimestamp": "2026-11-23T08:26:23{{tail}}"},
             "spec": {}, "status": {"conditions": [{"type": "Ready", "lastTransitionTime": "2026-11-23T08:26:23{{tail}}"} ] } }
            """;
        var expected = new DateTime(2026, 11, 23, 8, 26, 23, DateTimeKind.Utc).AddTicks(nanoseconds / 100);

        var read = KubernetesJson.Deserialize<GpuDeployment>(text);

        Assert.Equal(expected, read.Metadata.CreationTimestamp!.Value.ToUniversalTime());
        Assert.Equal(expected, read.Status!.Conditions![0].LastTransitionTime.ToUniversalTime());
    }

    private static readonly JsonObject RichTemplate = JsonNode.Parse("""
        {
          "apiVersion": "tensormesh.ai/v1alpha1",
          "kind": "GpuDeployment",
          "metadata": {"name": "rich"},
          "spec": {
            "gpu": {"count": 1, "container": "server"},
            "template": {
              "metadata": {"labels": {"app": "rich"}, "annotations": {"note": "a: b"}},
              "spec": {
                "terminationGracePeriodSeconds": 0,
                "nodeSelector": {"zone": "a"},
                "tolerations": [{"key": "gpu", "operator": "Exists", "effect": "NoSchedule", "tolerationSeconds": 30}],
                "securityContext": {"runAsUser": 1000, "runAsNonRoot": true},
                "volumes": [
                  {"name": "scratch", "emptyDir": {"sizeLimit": "1Gi"}},
                  {"name": "config", "configMap": {"name": "settings", "defaultMode": 420}}
                ],
                "initContainers": [{"name": "fetch", "image": "x", "command": ["sh", "-c", "true"]}],
                "containers": [{
                  "name": "server",
                  "image": "x",
                  "imagePullPolicy": "IfNotPresent",
                  "args": ["--port", "8000"],
                  "env": [
                    {"name": "EMPTY", "value": ""},
                    {"name": "POD", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}
                  ],
                  "ports": [{"name": "http", "containerPort": 8000}],
                  "readinessProbe": {"httpGet": {"path": "/healthz", "port": "http"}, "periodSeconds": 5},
                  "livenessProbe": {"tcpSocket": {"port": 8000}},
                  "resources": {"limits": {"cpu": "1500m", "memory": "512Mi"}, "requests": {"cpu": "100m", "memory": "1048576"}},
                  "volumeMounts": [{"name": "scratch", "mountPath": "/scratch"}]
                }]
              }
            }
          }
        }
        """)!.AsObject();

    private static GpuDeployment FullDeployment() => new()
    {
        Metadata = new() { Name = "trainer", NamespaceProperty = "acme-research", Labels = new Dictionary<string, string> { ["a"] = "b" } },
        Spec = new()
        {
            Replicas = 2,
            Gpu = new()
            {
                Count = 8,
                Product = "NVIDIA-H100-80GB-HBM3",
                MinMemory = "80G",
                MinComputeCapability = "9.0",
                Container = "trainer",
            },
            Template = new() { Spec = new() { Containers = [new() { Name = "trainer", Image = "x" }] } },
            Budget = new() { MaxHourlyRate = "40.00", MaxTotalCost = "500" },
            Paused = false,
        },
        Status = new()
        {
            ObservedGeneration = 3,
            Replicas = 2,
            ReadyReplicas = 2,
            Selector = "a=b",
            Gpus = 16,
            GpuProduct = "NVIDIA-H100-80GB-HBM3",
            HourlyRate = "40.00",
            CostToDate = "0.011111111",
            Conditions = [Ready],
        },
    };

    /// <summary>The object is filled in full, the CRD knows all of it, and it comes back the same.</summary>
    private static void IsKnownInFull<T>(T value, string plural)
    {
        var text = KubernetesJson.Serialize(value);
        var json = JsonNode.Parse(text)!.AsObject();

        Assert.Equal(text, KubernetesJson.Serialize(KubernetesJson.Deserialize<T>(text)));
        Assert.Empty(new ApiServer(plural).Refusals(json));
        Assert.Empty(Missing(Repository.Schema(plural), json, ""));
    }

    private static IEnumerable<string> Missing(JsonObject schema, JsonNode? value, string path)
    {
        if (path is ".metadata" or ".spec.template")
        {
            return [];
        }

        return value switch
        {
            null => [path],
            JsonArray list => Missing(schema["items"]!.AsObject(), list[0], $"{path}[]"),
            _ => (schema["properties"]?.AsObject() ?? []).SelectMany(field =>
                Missing(field.Value!.AsObject(), value[field.Key], $"{path}.{field.Key}")),
        };
    }

    private sealed class ObjectList<T>
    {
        [System.Text.Json.Serialization.JsonPropertyName("items")] public IList<T> Items { get; set; } = [];
    }
}
