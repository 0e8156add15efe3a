namespace Tensormesh.Resources;

/// <summary>What both <see cref="Validation"/> and the CRDs' CEL rules say, in the same words where the words need no figures.</summary>
public static class Messages
{
    public const string ProductIsImmutable =
        "cannot change while it is set: delete this GpuDeployment and apply it again, or create another with the other product";

    public const string TooManyGpus =
        "one GpuDeployment holds at most 1000 GPUs: lower spec.replicas or spec.gpu.count, or create another GpuDeployment";

    public const string NoSuchContainer =
        "spec.gpu.container is no container of spec.template: name one of them, or leave it out and the first gets the GPUs";

    public const string NoMemory = "is not an amount of memory above zero: write it like 40Gi";

    public const string NoBudget = "must be above 0: leave it out for no limit, or set paused to stop the pods";

    public const string OwnGpus = "must not ask for resources of nvidia.com: set spec.gpu.count instead";

    public const string DeploymentNameIsLong =
        "metadata.name: use at most 63 characters, because a GpuDeployment's name becomes a label and the name of a Deployment";

    public const string AccountNameIsLong =
        "metadata.name: use at most 63 characters, because namespaces name their account in a label";
}
