using k8s.Models;
using Tensormesh.Resources;

namespace Resources.Tests;

/// <summary>Every rule with the exact words that a customer reads.</summary>
public sealed class ValidationTests
{
    private const string LongName = "a234567890123456789012345678901234567890123456789012345678901234";

    [Fact]
    public void A_full_deployment_is_valid() => Assert.Empty(Validation.Validate(Deployment()));

    [Theory]
    [InlineData(0)]
    [InlineData(17)]
    [InlineData(-1)]
    [InlineData(int.MaxValue)]
    public void Refuses_gpus_per_pod_outside_1_to_16(int count) => Refuses(
        With(d => d.Spec.Gpu.Count = count),
        $"spec.gpu.count: must be 1 to 16, not {count}: it is the GPUs of one pod, and spec.replicas adds pods");

    [Theory]
    [InlineData(-1)]
    [InlineData(1001)]
    [InlineData(int.MaxValue)]
    public void Refuses_replicas_outside_0_to_1000(int replicas) => Refuses(
        With(d => d.Spec.Replicas = replicas),
        $"spec.replicas: must be 0 to 1000, not {replicas}");

    [Fact]
    public void Refuses_more_than_1000_gpus_in_all() => Refuses(
        With(d => (d.Spec.Replicas, d.Spec.Gpu.Count) = (126, 8)),
        "spec.replicas: 126 replicas of 8 GPUs are 1008 GPUs, and one GpuDeployment holds at most 1000 GPUs: " +
        "lower spec.replicas or spec.gpu.count, or create another GpuDeployment");

    [Fact]
    public void Admits_1000_gpus_and_none()
    {
        Assert.Empty(Validation.Validate(With(d => (d.Spec.Replicas, d.Spec.Gpu.Count) = (125, 8))));
        Assert.Empty(Validation.Validate(With(d => d.Spec.Replicas = 0)));
    }

    [Fact]
    public void Refuses_a_template_without_containers()
    {
        const string Expected = "spec.template.spec.containers: must have at least one container: it gets the GPUs";
        Refuses(With(d => d.Spec.Template.Spec.Containers = []), Expected);
        Refuses(With(d => d.Spec.Template.Spec.Containers = null!), Expected);
        Refuses(With(d => d.Spec.Template.Spec = null!), Expected);
        Refuses(With(d => d.Spec.Template = null!), Expected);
    }

    [Theory]
    [InlineData(null)]
    [InlineData("")]
    [InlineData("Side Car")]
    [InlineData(LongName)]
    public void Refuses_a_container_whose_name_no_pod_can_have(string? name) => Refuses(
        With(d => d.Spec.Template.Spec.Containers[1].Name = name!),
        $"spec.template.spec.containers[1].name: \"{name}\" is not a container's name: " +
        "use lower-case letters, digits and -, like trainer");

    [Fact]
    public void Refuses_two_containers_of_one_name() => Refuses(
        With(d => d.Spec.Template.Spec.Containers[1].Name = "trainer"),
        "spec.template.spec.containers[1].name: \"trainer\" is the name of an earlier container: give each its own");

    [Fact]
    public void Refuses_more_containers_than_the_schema_has_room_for() => Refuses(
        With(d => d.Spec.Template.Spec.Containers =
            [.. Enumerable.Range(0, 33).Select(i => new V1Container { Name = i == 0 ? "trainer" : $"c{i}" })]),
        "spec.template.spec.containers: has 33 entries: use at most 32");

    [Theory]
    [InlineData("nvidia.com/gpu")]
    [InlineData("nvidia.com/mig-1g.10gb")]
    public void Refuses_a_container_that_asks_for_gpus_itself(string resource)
    {
        var amount = new Dictionary<string, ResourceQuantity> { [resource] = new("1") };
        Refuses(
            With(d => d.Spec.Template.Spec.Containers[1].Resources = new() { Limits = amount, Requests = amount }),
            $"spec.template.spec.containers[1].resources: must not ask for {resource}: set spec.gpu.count instead");
        Refuses(
            With(d => d.Spec.Template.Spec.InitContainers = [new() { Name = "init", Resources = new() { Requests = amount } }]),
            $"spec.template.spec.initContainers[0].resources: must not ask for {resource}: set spec.gpu.count instead");
    }

    [Fact]
    public void Admits_other_resources() => Assert.Empty(Validation.Validate(With(d =>
        d.Spec.Template.Spec.Containers[0].Resources = new() { Limits = new Dictionary<string, ResourceQuantity> { ["cpu"] = new("4") } })));

    [Fact]
    public void Refuses_a_gpu_container_that_the_template_lacks() => Refuses(
        With(d => d.Spec.Gpu.Container = "worker"),
        "spec.gpu.container: \"worker\" is no container of spec.template: name one of trainer, sidecar, " +
        "or leave it out and the first gets the GPUs");

    [Theory]
    [InlineData("Never")]
    [InlineData("OnFailure")]
    [InlineData("")]
    public void Refuses_a_restart_policy_other_than_Always(string policy) => Refuses(
        With(d => d.Spec.Template.Spec.RestartPolicy = policy),
        $"spec.template.spec.restartPolicy: must be Always or absent, not {policy}: " +
        "a GpuDeployment keeps its pods running, and paused stops them");

    [Theory]
    [InlineData("0")]
    [InlineData("0.0Gi")]
    [InlineData("lots")]
    [InlineData("")]
    public void Refuses_memory_that_is_no_amount_above_zero(string memory) => Refuses(
        With(d => d.Spec.Gpu.MinMemory = memory),
        $"spec.gpu.minMemory: \"{memory}\" is not an amount of memory above zero: write it like 40Gi");

    [Fact]
    public void Refuses_a_compute_capability_of_another_form() => Refuses(
        With(d => d.Spec.Gpu.MinComputeCapability = "sm_90"),
        "spec.gpu.minComputeCapability: \"sm_90\" is not a compute capability: write major.minor in quotes, like \"8.9\"");

    [Theory]
    [InlineData("")]
    [InlineData("NVIDIA H100")]
    [InlineData("-H100")]
    [InlineData(LongName)]
    public void Refuses_a_product_that_no_label_can_hold(string product) => Refuses(
        With(d => d.Spec.Gpu.Product = product),
        $"spec.gpu.product: \"{product}\" is not a GPU product: " +
        "write it as the node's label nvidia.com/gpu.product does, like NVIDIA-H100-80GB-HBM3");

    [Fact]
    public void Refuses_a_budget_that_is_no_amount_above_zero()
    {
        Refuses(With(d => d.Spec.Budget!.MaxHourlyRate = "0.00"),
            "spec.budget.maxHourlyRate: must be above 0, not \"0.00\": leave it out for no limit, or set paused to stop the pods");
        Refuses(With(d => d.Spec.Budget!.MaxTotalCost = "-5"),
            "spec.budget.maxTotalCost: \"-5\" is negative: write dollars like \"20.00\", with no sign");
        Refuses(With(d => d.Spec.Budget!.MaxTotalCost = "0.1234567891"),
            "spec.budget.maxTotalCost: \"0.1234567891\" is not an amount of dollars: " +
            "write it like \"20.00\", with at most 9 digits on each side of the point");
        Refuses(With(d => d.Spec.Budget!.MaxTotalCost = ""),
            "spec.budget.maxTotalCost: \"\" is not an amount of dollars: " +
            "write it like \"20.00\", with at most 9 digits on each side of the point");
    }

    [Fact]
    public void Refuses_a_name_that_no_label_can_hold() => Refuses(
        With(d => d.Metadata.Name = LongName),
        "metadata.name: is 64 characters long: use at most 63, because a GpuDeployment's name becomes a label and the name of a Deployment");

    [Fact]
    public void Tells_everything_that_is_wrong_at_once() => Refuses(
        With(d => (d.Spec.Replicas, d.Spec.Gpu.Count, d.Spec.Template) = (-1, 0, null!)),
        "spec.replicas: must be 0 to 1000, not -1",
        "spec.gpu.count: must be 1 to 16, not 0: it is the GPUs of one pod, and spec.replicas adds pods",
        "spec.template.spec.containers: must have at least one container: it gets the GPUs");

    [Theory]
    [InlineData("NVIDIA-L40S")]
    [InlineData(null)]
    public void Refuses_another_product_while_one_is_set(string? product)
    {
        var errors = Validation.ValidateUpdate(Deployment(), With(d => d.Spec.Gpu.Product = product));

        Assert.Equal(
            ["spec.gpu.product: cannot change while it is set: delete this GpuDeployment and apply it again, " +
                "or create another with the other product"],
            errors.Select(error => error.ToString()));
    }

    [Fact]
    public void A_product_may_be_set_later_and_everything_else_may_change()
    {
        Assert.Empty(Validation.ValidateUpdate(With(d => d.Spec.Gpu.Product = null), Deployment()));
        Assert.Empty(Validation.ValidateUpdate(Deployment(), With(d => (d.Spec.Replicas, d.Spec.Gpu.Count, d.Spec.Paused) = (9, 4, true))));
    }

    [Fact]
    public void An_update_is_checked_like_a_new_object() => Assert.Equal(
        ["spec.replicas: must be 0 to 1000, not -1"],
        Validation.ValidateUpdate(Deployment(), With(d => d.Spec.Replicas = -1)).Select(error => error.ToString()));

    [Fact]
    public void A_full_account_and_an_empty_one_are_valid()
    {
        Assert.Empty(Validation.Validate(new BillingAccount()));
        Assert.Empty(Validation.Validate(Account(_ => { })));
    }

    [Theory]
    [InlineData("Mars/Olympus")]
    [InlineData("../../etc/passwd")]
    [InlineData("/etc/localtime")]
    [InlineData("europe berlin")]
    [InlineData("")]
    public void Refuses_a_time_zone_that_does_not_exist(string zone) => Refuses(
        Validation.Validate(Account(spec => spec.TimeZone = zone)),
        $"spec.timeZone: \"{zone}\" is not a known IANA time zone: write it like Europe/Berlin, or UTC");

    [Theory]
    [InlineData("1d")]
    [InlineData("-1h")]
    [InlineData("")]
    public void Refuses_a_grace_period_that_is_no_duration(string period) => Refuses(
        Validation.Validate(Account(spec => spec.CardGracePeriod = period)),
        $"spec.cardGracePeriod: \"{period}\" is not a duration: write it like 24h, 90m or 1h30m");

    [Fact]
    public void Refuses_an_account_whose_fields_do_not_fit()
    {
        Refuses(Validation.Validate(Account(spec => spec.LowBalanceAlert = "ten")),
            "spec.lowBalanceAlert: \"ten\" is not an amount of dollars: " +
            "write it like \"20.00\", with at most 9 digits on each side of the point");
        Refuses(Validation.Validate(Account(spec => spec.LowBalanceAlert = "-1")),
            "spec.lowBalanceAlert: \"-1\" is negative: write dollars like \"20.00\", with no sign");
        Refuses(Validation.Validate(Account(spec => spec.DisplayName = new string('x', 129))),
            "spec.displayName: is 129 characters long: use at most 128");
        Refuses(Validation.Validate(new BillingAccount { Metadata = { Name = LongName } }),
            "metadata.name: is 64 characters long: use at most 63, because namespaces name their account in a label");
    }

    [Fact]
    public void A_full_price_book_and_an_empty_one_are_valid()
    {
        Assert.Empty(Validation.Validate(new PriceBook()));
        Assert.Empty(Validation.Validate(Book(_ => { })));
    }

    [Fact]
    public void Refuses_prices_that_are_not_dollars()
    {
        Refuses(Validation.Validate(Book(spec => spec.Gpus![0].PerHour = "-2.50")),
            "spec.gpus[0].perHour: \"-2.50\" is negative: write dollars like \"20.00\", with no sign");
        Refuses(Validation.Validate(Book(spec => spec.Gpus![0].PerHour = "")),
            "spec.gpus[0].perHour: is missing: write dollars in quotes, like \"2.50\", or \"0\"");
        Refuses(Validation.Validate(Book(spec => spec.Serverless![0].InputPerMillion = "1e-7")),
            "spec.serverless[0].inputPerMillion: \"1e-7\" is not an amount of dollars: " +
            "write it like \"20.00\", with at most 9 digits on each side of the point");
        Refuses(Validation.Validate(Book(spec => spec.Serverless![0].OutputPerMillion = null!)),
            "spec.serverless[0].outputPerMillion: is missing: write dollars in quotes, like \"2.50\", or \"0\"");
        Refuses(Validation.Validate(Book(spec => spec.Serverless![0].CachedPerMillion = "free")),
            "spec.serverless[0].cachedPerMillion: \"free\" is not an amount of dollars: " +
            "write it like \"20.00\", with at most 9 digits on each side of the point");
    }

    [Fact]
    public void Refuses_two_prices_of_one_thing()
    {
        Refuses(Validation.Validate(Book(spec => spec.Gpus = [.. spec.Gpus!, spec.Gpus![0]])),
            "spec.gpus[2].product: \"NVIDIA-H100-80GB-HBM3\" has a price already, at spec.gpus[0]: keep one of the two");
        Refuses(Validation.Validate(Book(spec => spec.Serverless = [.. spec.Serverless!, spec.Serverless![0]])),
            "spec.serverless[1].model: \"openai/gpt-oss-20b\" has a price already, at spec.serverless[0]: keep one of the two");
    }

    [Fact]
    public void Refuses_prices_of_nameless_things()
    {
        Refuses(Validation.Validate(Book(spec => spec.Gpus![0].Product = "")),
            "spec.gpus[0].product: \"\" is not a GPU product: " +
            "write it as the node's label nvidia.com/gpu.product does, like NVIDIA-H100-80GB-HBM3");
        Refuses(Validation.Validate(Book(spec => spec.Serverless![0].Model = "")),
            "spec.serverless[0].model: \"\" is not a model's id: write it like openai/gpt-oss-20b");
    }

    [Fact]
    public void Refuses_more_prices_than_the_schema_has_room_for() => Refuses(
        Validation.Validate(Book(spec => spec.Gpus =
            [.. Enumerable.Range(0, 257).Select(i => new GpuPriceEntry { Product = $"GPU-{i}", PerHour = "1" })])),
        "spec.gpus: has 257 entries: use at most 256");

    private static GpuDeployment With(Action<GpuDeployment> change)
    {
        var deployment = Deployment();
        change(deployment);
        return deployment;
    }

    private static GpuDeployment Deployment() => new()
    {
        Metadata = new() { Name = LongName[..63] },
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
            Template = new()
            {
                Spec = new() { Containers = [new() { Name = "trainer" }, new() { Name = "sidecar" }], RestartPolicy = "Always" },
            },
            Budget = new() { MaxHourlyRate = "40.00", MaxTotalCost = "0.000000001" },
        },
    };

    private static BillingAccount Account(Action<BillingAccountSpec> change)
    {
        var account = new BillingAccount
        {
            Metadata = new() { Name = "acme" },
            Spec = new() { DisplayName = "Acme", LowBalanceAlert = "0", CardGracePeriod = "1h30m", TimeZone = "Europe/Berlin" },
        };
        change(account.Spec);
        return account;
    }

    private static PriceBook Book(Action<PriceBookSpec> change)
    {
        var book = new PriceBook
        {
            Spec = new()
            {
                Gpus = [new() { Product = "NVIDIA-H100-80GB-HBM3", PerHour = "2.50" }, new() { Product = "NVIDIA-L40S", PerHour = "0.90" }],
                Serverless =
                [
                    new() { Model = "openai/gpt-oss-20b", InputPerMillion = "0.07", OutputPerMillion = "0.28", CachedPerMillion = "0" },
                ],
            },
        };
        change(book.Spec);
        return book;
    }

    private static void Refuses(GpuDeployment deployment, params string[] expected) =>
        Refuses(Validation.Validate(deployment), expected);

    private static void Refuses(IReadOnlyList<FieldError> errors, params string[] expected) =>
        Assert.Equal(expected, errors.Select(error => error.ToString()));
}
